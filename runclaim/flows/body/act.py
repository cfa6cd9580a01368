"""
`ctx.act`: a call out of a body whose answer the body needs, made once and its answer kept for every later attempt.

A call that was begun and has no answer may have arrived. It is looked up, even after a person resumed the run; without
a lookup it is made again where the other side does nothing twice for one key, and otherwise the run is blocked until a
person says that it did not arrive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from runclaim.errors import Blocked, Retry
from runclaim.keys import check_name

if TYPE_CHECKING:
    from collections.abc import Callable


class Acts(Protocol):
    """Where calls and their answers are kept."""

    def begin_act(self, name: str) -> tuple[bool, str, Any]:
        """Whether it is the first, its state (`sending`, `released`, `posted`), its answer. Raises: ClaimLost."""
        ...

    def forget_act(self, name: str) -> None:
        """The call was not made after all. Raises: ClaimLost."""
        ...

    def answer_act(self, name: str, answer: Any) -> Any:
        """Record the answer. Raises: ClaimLost, InputError."""
        ...


def act(
    acts: Acts,
    name: str,
    call: Callable[[str], Any],
    *,
    key: str,
    lookup: Callable[[str], Any] | None,
    idempotent: bool,
) -> Any:
    """Make the call under `key`, or give the answer that is known. Raises: Blocked, ClaimLost, what `call` raises."""
    is_first, state, answer = acts.begin_act(check_name("act", name))
    if state == "posted":
        return answer
    if not is_first and lookup is not None:
        if (found := lookup(key)) is not None:
            return acts.answer_act(name, found)
    elif not (is_first or idempotent or state == "released"):
        raise Blocked(
            f"the call {name!r} was begun and its answer is not known: it may have arrived under the key {key}."
            " Look there. If it did not, resume the run: it is called again. If it did, give ctx.act a lookup"
        )
    try:
        made = call(key)
    except Retry:
        # It says that nothing was sent.
        acts.forget_act(name)
        raise
    return acts.answer_act(name, made)
