"""Numbers and closed objects as the ledger keeps and compares them: 1, 1.0 and True are three things in JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runclaim.errors import InputError
from runclaim.flows.declare.input_forms import Form
from runclaim.flows.declare.round_trip import require_same

WHOLE = {"type": "integer"}
NUMBER = {"type": "number"}
DECIMAL = {"type": "string", "format": "decimal"}


def closed(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "additionalProperties": False}


@pytest.mark.parametrize(
    "schema,given,kept",
    [
        pytest.param(WHOLE, 7.0, "7", id="a whole number that is written as a broken one"),
        pytest.param(NUMBER, 7, "7.0", id="a broken number that is written as a whole one"),
        pytest.param({"anyOf": [WHOLE, NUMBER]}, 7, "7", id="a whole number where both are declared"),
        pytest.param({"anyOf": [NUMBER, WHOLE]}, 7.0, "7.0", id="a broken number where both are declared"),
        pytest.param({"anyOf": [WHOLE, {"type": "null"}]}, 7.0, "7", id="a whole number or none"),
        pytest.param({"anyOf": [NUMBER, {"type": "null"}]}, 7, "7.0", id="a broken number or none"),
        pytest.param(WHOLE, True, "true", id="a bool where a whole number is declared"),
        pytest.param(NUMBER, True, "true", id="a bool where a number is declared"),
        pytest.param({"anyOf": [WHOLE, {"type": "boolean"}]}, True, "true", id="a bool beside a whole number"),
    ],
)
def test_a_number_is_kept_as_its_type_writes_it(schema: dict[str, Any], given: Any, kept: str):
    """
    INVARIANT: a number that comes in by a door without the application is kept as the application would keep it.

    Breaks if the schema's kind of number is not applied, or if it is applied where both kinds are declared.
    """
    assert kept == json.dumps(Form(schema).kept(given))


@pytest.mark.parametrize("given", ["NaN", "Infinity", "-Infinity", "sNaN"])
def test_a_decimal_that_is_no_number_is_compared_as_it_is_written(given: str):
    assert given == Form(DECIMAL).compared(given)


def test_fields_that_a_type_has_no_longer_make_no_other_input_however_deep_they_are():
    """
    INVARIANT: an input whose type has lost a field is the same input, at doors without the application too.

    Breaks if fields that are not declared are compared anywhere below the top.
    """
    part = closed(name={"type": "string"})
    form = Form(closed(part=part, parts={"type": "array", "items": part}, named={"additionalProperties": part}))

    now = {"part": {"name": "a"}, "parts": [{"name": "b"}], "named": {"c": {"name": "d"}}}
    before = {
        "part": {"name": "a", "gone": 1},
        "parts": [{"name": "b", "gone": 2}],
        "named": {"c": {"name": "d", "gone": 3}},
        "gone": 4,
    }

    assert form.compared(now) == form.compared(before)
    assert before == form.kept(before), "nothing that was sent is dropped from what is kept"


@pytest.mark.parametrize("given,read", [(True, 1), (1, True), (False, 0), (0.0, False)])
def test_a_bool_is_not_read_as_the_number_that_python_calls_equal(given: Any, read: Any):
    with pytest.raises(InputError, match=r"^flag: is of type"):
        require_same("flag", given, read)
