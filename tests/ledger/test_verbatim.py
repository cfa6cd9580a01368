"""What bodies and handlers are given is what was written, to the letter, whichever database kept it."""

from __future__ import annotations

import json

import pytest

from runclaim.ledger import read
from runclaim.ledger.actions.claim import claim_actions
from runclaim.ledger.body.acts import answer_act, begin_act
from runclaim.ledger.complete import complete
from runclaim.ledger.signal import signal
from tests.ledger.factories import claimed_run, completion, waiting_run
from tests.ledger.test_actions import LONGEST, new_action

#: Each of them is another one after a round trip through `jsonb`.
TEXTS = ["1e22", "-0.0", '{"b": 1, "a": 2}', "[1.0, 1, true]", '{"aa": 1, "b": {"d": -0.0, "c": 1e+300}}']


@pytest.mark.parametrize("text", TEXTS)
def test_a_value_is_read_as_it_was_written(conn, text):
    """
    INVARIANT: a body is given the same value by a worker that has it in memory and by one that reads it.

    Breaks if the column is `jsonb`: keys are sorted, 1e22 becomes an integer and -0.0 loses its sign.
    """
    taken = claimed_run(conn, input={"it": json.loads(text)})
    begin_act(conn, taken, "call")
    answer_act(conn, taken, "call", text)
    _, _, answer = begin_act(conn, taken, "call")
    action = new_action(taken, payload=text)
    complete(conn, [completion(taken, result=text, actions=(action,))])
    waits = waiting_run(conn)
    signal(conn, waits, "heard", signal_id="1", payload=text)
    (sending,) = claim_actions(conn, {"comment": LONGEST}, owner="0" * 32, limit=1)
    given = {
        "input": taken.input["it"],
        "input of a view": read.run(conn, taken.run_id).input["it"],
        "result": read.results(conn, taken.run_id)[taken.phase],
        "answer of an act": answer,
        "payload of an action": sending.payload,
        "payload of a signal": read.signal(conn, waits, "heard")[0],
    }

    assert dict.fromkeys(given, repr(json.loads(text))) == {name: repr(value) for name, value in given.items()}
