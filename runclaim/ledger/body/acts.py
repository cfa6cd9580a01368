"""
Acts: calls that a body makes and whose answers it needs, each written before it is made and once more with its answer.

An answer that is recorded is given again at every later attempt. One that is missing means that the call may have
arrived; who made it decides what to do. Every write holds the run's row by its claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, bindparam, delete, false, select, true, update

from runclaim.codec import sealed
from runclaim.ledger.fence import require_held
from runclaim.ledger.history.restored import is_in_doubt
from runclaim.models import acts
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id, verbatim
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.ledger.fence import Claim

_its_place: Final = (
    acts.c.run_id == bindparam("its_run", type_=Id()),
    acts.c.phase == bindparam("its_phase"),
    acts.c.name == bindparam("its_name"),
)
_FIND: Final = select(acts.c.state, acts.c.answer).where(*_its_place)
_ANSWER: Final = (
    update(acts)
    .where(*_its_place)
    .values(state="posted", answer=verbatim(bindparam("its_answer", type_=Text())), answered_at=now())
)
_FORGET: Final = delete(acts).where(*_its_place, acts.c.state == "sending")
_RELEASE_ALL: Final = (
    update(acts)
    .where(acts.c.run_id == bindparam("its_run", type_=Id()), acts.c.state == "sending")
    .values(released=true())
)
_USE_RELEASE: Final = (
    update(acts).where(*_its_place, acts.c.released).values(released=false(), attempted_at=now()).returning(acts.c.name)
)


def _begin(new: Any) -> Any:
    return (
        new.values(
            run_id=bindparam("its_run", type_=Id()),
            phase=bindparam("its_phase"),
            name=bindparam("its_name"),
            state="sending",
            attempted_at=now(),
        )
        .on_conflict_do_nothing(index_elements=["run_id", "phase", "name"])
        .returning(is_in_doubt(bindparam("its_run", type_=Id())))
    )


_BEGIN: Final = upsert(acts, _begin)


def begin_act(conn: Connection, claim: Claim, name: str) -> tuple[bool, str, Any]:
    """
    Note that a call is about to be made.

    Returns: whether it is surely the first, its state, and its recorded answer. The state is `sending`, `posted`, or
    `released`, once, when a person has resumed the run since it was begun. Raises: ClaimLost. The caller owns the
    transaction and calls only after its commit.
    """
    require_held(conn, claim)
    place = {"its_run": claim.run_id, "its_phase": claim.phase, "its_name": name}
    if (is_doubtful := conn.execute(_BEGIN[conn.dialect.name], place).scalar()) is not None:
        return not is_doubtful, "sending", None
    state, answer = conn.execute(_FIND, place).one()
    if state == "sending" and conn.execute(_USE_RELEASE, place).scalar() is not None:
        return False, "released", None
    return False, state, answer


def forget_act(conn: Connection, claim: Claim, name: str) -> None:
    """The call was not made after all: the next attempt begins it again. Raises: ClaimLost."""
    require_held(conn, claim)
    conn.execute(_FORGET, {"its_run": claim.run_id, "its_phase": claim.phase, "its_name": name})


def release_unanswered(conn: Connection, run_id: str) -> None:
    """
    A person resumes the run: what has no answer may be called again.

    It may have arrived anyway, so it is looked up first if it can be. The caller owns the transaction.
    """
    conn.execute(_RELEASE_ALL, {"its_run": run_id})


def answer_act(conn: Connection, claim: Claim, name: str, answer: str) -> None:
    """Record the answer, JSON text, of a call. Raises: ClaimLost. The caller owns the transaction."""
    require_held(conn, claim)
    place = {"its_run": claim.run_id, "its_phase": claim.phase, "its_name": name}
    conn.execute(_ANSWER, place | {"its_answer": sealed(answer)})
