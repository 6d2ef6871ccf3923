"""Whether an expression fits the columns that there are."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from homeostat_monitor.domain.errors import MonitorError
from homeostat_monitor.domain.segments.nodes import (
    And,
    Column,
    Comparison,
    Constant,
    Kind,
    Membership,
    Node,
    Not,
    Operand,
    Or,
    find,
)

_MOST_NAMES_TOLD = 20


class BadExpression(MonitorError, ValueError):
    """The text is no expression; the message names the place and the cure."""

    def __init__(self, what: str, at: int) -> None:
        """``at``: characters before the place."""
        super().__init__(f"at character {at + 1}: {what}")
        self.at = at


def check(node: Node, kinds: Mapping[str, Kind | None]) -> None:
    """BadExpression where a column is not in ``kinds``, or where text is compared with numbers."""
    for column in columns_of(node):
        if find(dict.fromkeys(kinds, True), column.name) is None:
            raise BadExpression(_unknown(column.name, list(kinds)), column.at)
    for left, right in _pairs(node):
        _check_kinds(left, right, kinds)


def columns_of(node: Node) -> Iterator[Column]:
    """Every mention of a column, in the order of the text."""
    if isinstance(node, And | Or):
        for each in node.parts:
            yield from columns_of(each)
    elif isinstance(node, Not):
        yield from columns_of(node.part)
    elif isinstance(node, Comparison):
        yield from (each for each in node.operands if isinstance(each, Column))
    else:
        yield node.column


def _pairs(node: Node) -> Iterator[tuple[Operand, Operand]]:
    """What is compared with what."""
    if isinstance(node, And | Or):
        for each in node.parts:
            yield from _pairs(each)
    elif isinstance(node, Not):
        yield from _pairs(node.part)
    elif isinstance(node, Comparison):
        yield from ((left, right) for _, left, right in node.pairs())
    elif isinstance(node, Membership):
        yield from ((node.column, each) for each in node.values)


def _check_kinds(left: Operand, right: Operand, kinds: Mapping[str, Kind | None]) -> None:
    of_left, of_right = (
        each.kind if isinstance(each, Constant) else find(kinds, each.name)
        for each in (left, right)
    )
    if of_left is None or of_right is None or of_left is of_right:
        return
    column, other = (left, right) if isinstance(left, Column) else (right, left)
    kind = of_left if column is left else of_right
    cure = "leave the quotes away" if kind is Kind.NUMBER else "put it in quotes"
    if isinstance(other, Column):
        cure = "compare it with a column of its own kind"
    raise BadExpression(
        f"{column.text} is a column of {kind}s and is compared with {other.text}; {cure}", column.at
    )


def _unknown(name: str, there: Sequence[str]) -> str:
    near = get_close_matches(name, there, n=1)
    guess = f"; did you mean {Column(near[0]).text}?" if near else "."
    more = ", ..." if len(there) > _MOST_NAMES_TOLD else ""
    known = ", ".join(there[:_MOST_NAMES_TOLD]) or "none"
    return f"there is no column {name!r}{guess} There are: {known}{more}"
