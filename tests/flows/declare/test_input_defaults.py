from __future__ import annotations

from dataclasses import dataclass, field

from runclaim.flows.declare.inputs import InputType
from runclaim.keys import fingerprint


@dataclass(frozen=True)
class Place:
    city: str
    country: str = "NO"


@dataclass(frozen=True)
class Order:
    name: str
    note: str = ""
    places: list[Place] = field(default_factory=list)


def test_an_input_given_by_its_fields_is_the_input_given_as_a_value():
    """
    INVARIANT: one input has one fingerprint, however it is given.

    Breaks if a default that nobody spelled out is left out of the recorded input: the second click on the same
    button is then a KeyConflict.
    """
    kind = InputType(Order)
    whole = kind.check(Order("a", places=[Place("Oslo")]))
    by_fields = kind.check({"name": "a", "places": [{"city": "Oslo"}]})

    assert {"name": "a", "note": "", "places": [{"city": "Oslo", "country": "NO"}]} == kind.dump(by_fields)
    assert fingerprint(kind.dump(whole)) == fingerprint(kind.dump(by_fields))
