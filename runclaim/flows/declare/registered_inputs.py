"""
Inputs of a flow whose application is not at hand, taken by the schema that its workers have registered.

The input is brought into the form that the application would keep, and held against the schema. A flow whose type has
code of its own is refused: that code may make the same input of two spellings.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from runclaim.errors import InputError
from runclaim.flows.declare.input_forms import Form, object_of
from runclaim.flows.declare.intake import Intake
from runclaim.flows.declare.validator import problems_of
from runclaim.keys import Template, check_text, dump_json, run_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runclaim.flows.declare.description import FlowDescription
    from runclaim.keys import RunKey
    from runclaim.ledger.fence import Claim


class InputRefused(InputError):
    """An input does not fit its flow's schema; nothing was written. `problems` pairs JSON pointers with reasons."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__(*problems[0])


class RegisteredInputs:
    """Inputs are taken by a description's schema; a key or a subject that its application computes has to be given."""

    def __init__(self, description: FlowDescription) -> None:
        self.description = description

    @cached_property
    def _form(self) -> Form:
        return Form(self.description.input)

    @cached_property
    def _key(self) -> Template | None:
        text = self.description.key
        return None if text is None else Template(text, self.description.fields, what="key")

    @cached_property
    def _subject(self) -> Template | None:
        text = self.description.subject
        return None if text is None else Template(text, self.description.fields, what="subject")

    def take(self, given: Mapping[str, Any], *, key: str | None = None, subject: str | None = None) -> Intake:
        """See `TakesInputs.take`. Raises: InputRefused too, and InputError for a type with code of its own."""
        name, own_code = self.description.name, self.description.own_code
        if own_code is not None:
            problem = f"cannot be made without the application of flow {name}: {own_code}; run it with -A"
            raise InputError("input", problem)
        return self._take(dict(given), key, subject)

    def take_recorded(self, recorded: Any, *, key: str, subject: str | None) -> Intake:
        """See `TakesInputs.take_recorded`."""
        description = self.description
        named = key if description.key is None else None
        about = subject if description.has_subject and description.subject is None else None
        return self._take(self._still_known(recorded), named, about)

    def key_of(self, claim: Claim) -> RunKey:
        """See `TakesInputs.key_of`."""
        return self._named(claim.input, claim.key if self._key is None else None)

    def _take(self, given: dict[str, Any], key: str | None, subject: str | None) -> Intake:
        plain = self._form.kept(given)
        if problems := problems_of(self.description.input, plain):
            raise InputRefused(problems)
        dump_json("input", plain)
        secrets = self.description.secrets
        # Before what is made from it: an error of a key shows the value that the key cannot take.
        secrets.check(plain)
        named, about = self._named(plain, key), self._about(plain, subject)
        secrets.check_made(key=named.text, subject=about)
        return Intake(plain, named, about, self._form.compared(plain), self._comparable)

    def _comparable(self, recorded: Any) -> Any:
        return self._form.compared(self._form.kept(recorded))

    def _named(self, plain: dict[str, Any], given: str | None) -> RunKey:
        flow = self.description.name
        if self._key is None:
            if given is None:
                raise InputError("key", f"is computed by a function of the application of flow {flow}; pass it")
            return run_key([given])
        if given is not None:
            raise InputError("key", f"is computed from the input ({self._key.text!r} for flow {flow}); leave it out")
        return run_key(self._key.parts(plain))

    def _about(self, plain: dict[str, Any], given: str | None) -> str | None:
        flow, has_one = self.description.name, self.description.has_subject
        if self._subject is None and has_one:
            if given is None:
                raise InputError("subject", f"is computed by a function of the application of flow {flow}; pass it")
            return check_text("subject", given)
        if given is not None:
            origin = "computed from the input" if has_one else "not used by this flow"
            raise InputError("subject", f"is {origin}: leave it out")
        return None if self._subject is None else check_text("subject", "".join(self._subject.parts(plain)))

    def _still_known(self, recorded: dict[str, Any]) -> dict[str, Any]:
        """A recorded input without the fields that its type has no longer."""
        if object_of(self.description.input).get("additionalProperties") is not False:
            return recorded
        return {name: each for name, each in recorded.items() if name in self.description.fields}
