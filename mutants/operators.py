"""
What can be changed in one place: Cosmic Ray's operators, and those that code like this one needs beside them.

Cosmic Ray knows comparisons, boolean operators and numbers. Ours know what carries the promise here: a condition left
out of a statement, a call that is not made, two arguments that changed places, a function that returns too early.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import parso
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_COSMIC: Final = {
    "ReplaceComparisonOperator": "Eq_NotEq NotEq_Eq Lt_LtE LtE_Lt Gt_GtE GtE_Gt Lt_Gt Gt_Lt Is_IsNot IsNot_Is",
    "ReplaceBinaryOperator": "Add_Sub Sub_Add Mul_Add Div_Mul FloorDiv_Mul BitOr_BitAnd BitAnd_BitOr LShift_RShift",
    "ReplaceUnaryOperator": "Delete_Not USub_UAdd Delete_Invert",
    "": "AddNot ReplaceAndWithOr ReplaceOrWithAnd ReplaceTrueWithFalse ReplaceFalseWithTrue ReplaceBreakWithContinue "
    "ReplaceContinueWithBreak ZeroIterationForLoop ExceptionReplacer",
}
_CONDITIONS: Final = frozenset({"where", "and_", "or_", "order_by", "group_by"})
_OF_A_STATEMENT: Final = frozenset({
    "where", "with_for_update", "order_by", "limit", "offset", "execution_options", "join", "outerjoin", "group_by",
    "having", "distinct", "on_conflict_do_nothing", "desc", "nulls_first", "nulls_last", "correlate", "strip", "lower",
})  # fmt: skip
_PAIRS: Final = (
    ("and_", "or_"), ("min", "max"), ("any", "all"), ("is_", "is_not"), ("in_", "not_in"),
    ("is_distinct_from", "is_not_distinct_from"), ("startswith", "endswith"),
)  # fmt: skip
_OPPOSITES: Final = {**dict(_PAIRS), **{right: left for left, right in _PAIRS}}
#: Lines of a log, and failpoints: the fault tests that need one fail without it, with real workers.
_OF_NO_EFFECT: Final = ("debug", "info", "warning", "exception", "error", "hit")


class Change(Operator):
    """An operator of ours: `places` finds what can be changed in a node, `change` changes one of them."""

    def places(self, node: Any) -> Sequence[Any]:
        """What this operator can change in the node, one mutant each."""
        raise NotImplementedError

    def change(self, node: Any, place: Any) -> Any:
        """The node with that change."""
        raise NotImplementedError

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Where Cosmic Ray can apply this."""
        for place in self.places(node):
            yield place.start_pos, place.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """What Cosmic Ray calls."""
        return self.change(node, self.places(node)[index])

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """None here: the tests have them."""
        return ()


class DropArgument(Change):
    """Leave out one condition of a statement, or one keyword argument of any call."""

    def places(self, node: Any) -> Sequence[Any]:
        every = _arguments(node)
        several = len(every) > 1 and _name(node) in _CONDITIONS
        return [one for one in every if several or _keyword(one)]

    def change(self, node: Any, place: Any) -> Any:
        inside = node.children[1]
        if inside is place:
            del node.children[1]
            return node
        at = inside.children.index(place)
        first = at if at + 1 < len(inside.children) else at - 1  # the comma goes, too
        del inside.children[first : first + 2]
        return node


class SwapArguments(Change):
    """Let the first two positional arguments of a call change places."""

    def places(self, node: Any) -> Sequence[Any]:
        positional = [one for one in _arguments(node) if one.type != "argument"]
        return positional[:1] if len(positional) > 1 and _name(node) not in {*_CONDITIONS, "isinstance"} else []

    def change(self, node: Any, place: Any) -> Any:
        children = node.children[1].children
        first, second = children.index(place), children.index(place) + 2
        children[first], children[second] = _code(children[second]), _code(place)
        return node


class DropCall(Change):
    """Do not make a call whose result nobody takes, unless it is a failpoint or writes a line of the log."""

    def places(self, node: Any) -> Sequence[Any]:
        if node.type != "simple_stmt" or node.children[0].type not in {"atom_expr", "power"}:
            return []
        *_, method, call = node.children[0].children
        is_idle = method.type == "trailer" and method.children[-1].get_code() in _OF_NO_EFFECT
        return [node.children[0]] if _is_call(call) and not is_idle else []

    def change(self, node: Any, place: Any) -> Any:
        node.children[0] = _code(place, "pass")
        return node


class DropMethod(Change):
    """Leave out one `.where(…)`, `.limit(…)`, `.with_for_update(…)` and the like."""

    def places(self, node: Any) -> Sequence[Any]:
        if node.type not in {"atom_expr", "power"}:
            return []
        pairs = zip(node.children[1:], node.children[2:], strict=False)
        return [m for m, call in pairs if _is_call(call) and m.children[-1].get_code() in _OF_A_STATEMENT]

    def change(self, node: Any, place: Any) -> Any:
        at = node.children.index(place)
        del node.children[at : at + 2]
        return node


class Opposite(Change):
    """Say `or_` for `and_`, `max` for `min`, `not in` for `in`, and so on."""

    def places(self, node: Any) -> Sequence[Any]:
        if node.type == "name" and node.value in _OPPOSITES and node.parent.type in {"trailer", "atom_expr", "power"}:
            return [node]
        if node.type == "comparison":
            return [word for word in node.children[1::2] if word.get_code().strip() in {"in", "not in"}]
        return []

    def change(self, node: Any, place: Any) -> Any:
        if node is place:
            return _code(node, _OPPOSITES[node.value])
        node.children[node.children.index(place)] = _code(place, {"in": "not in"}.get(place.get_code().strip(), "in"))
        return node


class NoAnswer(Change):
    """Return `None` instead of what was returned."""

    def places(self, node: Any) -> Sequence[Any]:
        returned = node.type == "return_stmt" and node.children[1].get_code().strip() != "None"
        return [node.children[1]] if returned else []

    def change(self, node: Any, place: Any) -> Any:
        node.children[1] = _code(place, "None")
        return node


class NoRefusal(Change):
    """Do not raise."""

    def places(self, node: Any) -> Sequence[Any]:
        raised = node.type == "simple_stmt" and node.children[0].type == "raise_stmt"
        return [node.children[0]] if raised else []

    def change(self, node: Any, place: Any) -> Any:
        node.children[0] = _code(place, "pass")
        return node


class OtherNumber(Change):
    """One more than a small number, ten times a large one: near enough to a slip, far enough to matter."""

    def places(self, node: Any) -> Sequence[Any]:
        return [node] if node.type == "number" else []

    def change(self, node: Any, place: Any) -> Any:
        number = float(node.value.replace("_", "")) if not node.value.startswith("0x") else int(node.value, 16)
        return _code(place, f"{number * 10 if number >= 10 else number + 1:g}" if number < 1e6 else "1")  # noqa: PLR2004


@functools.cache
def operators() -> list[tuple[str, Operator]]:
    """Every operator with its name; the order is part of a mutant's place in a sample."""
    names = [f"{kind}_{end}" if kind else end for kind, ends in _COSMIC.items() for end in ends.split()]
    ours = (DropArgument, SwapArguments, DropCall, DropMethod, Opposite, NoAnswer, NoRefusal, OtherNumber)
    return [(name, get_operator(f"core/{name}")()) for name in names] + [(c.__name__, c()) for c in ours]


def _is_call(node: Any) -> bool:
    return node.type == "trailer" and node.children[0].get_code().strip() == "("


def _arguments(node: Any) -> list[Any]:
    """The arguments of a call's trailer, without its starred ones; none if the node is no call."""
    if not _is_call(node) or len(node.children) < 3:  # noqa: PLR2004 - the parentheses alone
        return []
    inside = node.children[1]
    every = inside.children[::2] if inside.type == "arglist" else [inside]
    return [one for one in every if not one.get_code().lstrip().startswith("*")]


def _keyword(argument: Any) -> bool:
    return argument.type == "argument" and argument.children[1].get_code() == "="


def _name(call: Any) -> str:
    """The name of what is called, without what it hangs on."""
    before = call.parent.children[call.parent.children.index(call) - 1]
    return str(before.get_last_leaf().value)


def _code(node: Any, text: str | None = None) -> Any:
    """A node of that text (or of the node's own), with the white space that stands before `node`."""
    prefix = node.get_first_leaf().prefix
    return parso.python.tree.Name((text or node.get_code(include_prefix=False)), node.start_pos, prefix)
