"""
Hooks: functions of the application that are called once per run and phase when it is complete, blocked or failed.

A hook is an action: planned in the transaction that it tells of, and sent after it. One that raises is tried again;
one whose worker died before its end runs again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import DeclarationError, Retry
from runclaim.flows.actions.action import Action, ActionOptions
from runclaim.keys import uuid7
from runclaim.ledger.actions.plan import NewAction, Stopped
from runclaim.secrets import kind_of
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping

    from runclaim.ledger.fence import Claim

_WORDS: Final = {RunState.BLOCKED: "on_blocked", RunState.FAILED: "on_failed"}


@dataclass(frozen=True, slots=True)
class HookEvent:
    """What a hook is told. `state` is `complete`, `blocked` or `failed`; `error` says why for the last two."""

    run_id: str
    flow: str
    key: str
    phase: str
    state: str
    error: dict[str, Any] | None = None


class Hooks:
    """The hooks of one flow, in the order of their declarations; each is an action of the application."""

    def __init__(self, flow: str, actions: MutableMapping[str, Action]) -> None:
        self._flow, self._actions = flow, actions
        #: `on_complete`, `on_blocked` and `on_failed`, each with the kinds of its actions.
        self.kinds: dict[str, list[str]] = {}

    def declare(self, word: str, hook: Callable[[HookEvent], object]) -> Callable[[HookEvent], object]:
        """Declare a hook for `on_complete`, `on_blocked` or `on_failed`. Raises: DeclarationError."""
        name = getattr(hook, "__name__", "<no name>")
        if not callable(hook) or name.startswith("<"):
            raise DeclarationError(f"a hook must be a named function: @{self._flow}.{word} above `def tell(event)`")
        kind = f"{self._flow}.{word}.{name}"
        if kind in self._actions:
            raise DeclarationError(f"flow {self._flow} already has a hook {word} named {name}; rename the second")

        def told(payload: Any, _key: str) -> None:
            try:
                hook(HookEvent(**payload))
            except Exception as error:
                # It has said that it did not get through; what it had done by then is its own to know.
                raise Retry(f"{kind_of(error)}: {error}") from error

        self._actions[kind] = Action(kind, told, ActionOptions(idempotent=True))
        self.kinds.setdefault(word, []).append(kind)
        return hook


def _plan(kinds: Iterable[str], event: HookEvent) -> Iterable[NewAction]:
    """The actions that tell hooks of these kinds of an event."""
    for kind in kinds:
        name = kind.removeprefix(f"{event.flow}.")
        yield NewAction(uuid7(), event.run_id, event.phase, name, kind, json.dumps(asdict(event)))


def plan_completed(kinds: Mapping[str, Iterable[str]], claim: Claim) -> Iterable[NewAction]:
    """The actions that tell a run's hooks that the claim's phase is complete; `kinds` as in `Hooks.kinds`."""
    event = HookEvent(claim.run_id, claim.flow, claim.key, claim.phase, "complete")
    return _plan(kinds.get("on_complete", ()), event)


def plan_stopped(kinds: Mapping[str, Iterable[str]], stopped: Stopped) -> Iterable[NewAction]:
    """The actions that tell a run's hooks that it is blocked or has failed; `kinds` as in `Hooks.kinds`."""
    return _plan(kinds.get(_WORDS[stopped.state], ()), HookEvent(**asdict(stopped)))
