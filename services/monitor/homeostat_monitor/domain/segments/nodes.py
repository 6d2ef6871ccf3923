"""What an expression is made of, and which rows each part holds for.

Logic is Kleene's (Introduction to Metamathematics, 1952, section 64): a null makes a comparison
unknown, and what is unknown is neither true nor false, so ``not`` does not turn it into a row.
"""

import json
import keyword
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.windows.bins import (
    CategoryColumn,
    ColumnValues,
    NumberColumn,
    known_codes,
)

Mask = NDArray[np.bool_]
Columns = Mapping[str, ColumnValues]
CONTEXT_PREFIX = "context."
RESERVED = frozenset({"null", "true", "false", "column"})

OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        "==": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
    }
)


class Kind(StrEnum):
    """What a column holds."""

    NUMBER = "number"
    TEXT = "text"


class Known(NamedTuple):
    """Where something is surely true and where it is surely false, bool per row."""

    true: Mask
    false: Mask

    def negated(self, *, wanted: bool) -> "Known":
        """The opposite, where that is wanted."""
        return Known(self.false, self.true) if wanted else self


@dataclass(frozen=True, slots=True)
class Column:
    """A column by its name."""

    name: str
    # Where it stands in the text, from 0.
    at: int = field(default=0, compare=False)

    @property
    def text(self) -> str:
        parts = self.name.split(".")
        if self.name.isascii() and all(map(_is_plain, parts)) and len(parts) <= 2:
            return self.name
        if "`" in self.name or not self.name.isprintable():
            return f"column({json.dumps(self.name, ensure_ascii=False)})"
        return f"`{self.name}`"


@dataclass(frozen=True, slots=True)
class Constant:
    """A number or a text."""

    value: float | str
    at: int = field(default=0, compare=False)

    @property
    def kind(self) -> Kind:
        return Kind.TEXT if isinstance(self.value, str) else Kind.NUMBER

    @property
    def text(self) -> str:
        value = self.value
        return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


Operand = Column | Constant


@dataclass(frozen=True, slots=True)
class Comparison:
    """``operands`` compared each with the next; all must hold."""

    operands: tuple[Operand, ...]
    operators: tuple[str, ...]

    @property
    def text(self) -> str:
        first, *rest = self.operands
        parts = zip(self.operators, rest, strict=True)
        return first.text + "".join(f" {sign} {each.text}" for sign, each in parts)

    def pairs(self) -> Iterator[tuple[str, Operand, Operand]]:
        """Operator, left, right."""
        for sign, (left, right) in zip(self.operators, pairwise(self.operands), strict=True):
            yield sign, left, right

    def known(self, columns: Columns, rows: int) -> Known:
        return _all([_compared(*pair, columns, rows) for pair in self.pairs()])


@dataclass(frozen=True, slots=True)
class Membership:
    """A column's value is one of ``values``, or none of them."""

    column: Column
    values: tuple[Constant, ...]
    is_negated: bool

    @property
    def text(self) -> str:
        sign = "not in" if self.is_negated else "in"
        return f"{self.column.text} {sign} [{', '.join(each.text for each in self.values)}]"

    def known(self, columns: Columns, rows: int) -> Known:
        parts = [_compared("==", self.column, each, columns, rows) for each in self.values]
        return _any(parts).negated(wanted=self.is_negated)


@dataclass(frozen=True, slots=True)
class Nullness:
    """A column's value is null, or is there."""

    column: Column
    is_negated: bool

    @property
    def text(self) -> str:
        return f"{self.column.text} {'is not' if self.is_negated else 'is'} null"

    def known(self, columns: Columns, rows: int) -> Known:
        column = find(columns, self.column.name)
        null = np.ones(rows, dtype=bool) if column is None else ~_present(column)
        return Known(null, ~null).negated(wanted=self.is_negated)


@dataclass(frozen=True, slots=True)
class Not:
    part: "Node"

    @property
    def text(self) -> str:
        return f"not {_within(self.part, Not)}"

    def known(self, columns: Columns, rows: int) -> Known:
        return self.part.known(columns, rows).negated(wanted=True)


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Node", ...]

    @property
    def text(self) -> str:
        return " and ".join(_within(each, And) for each in self.parts)

    def known(self, columns: Columns, rows: int) -> Known:
        return _all([each.known(columns, rows) for each in self.parts])


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Node", ...]

    @property
    def text(self) -> str:
        return " or ".join(_within(each, Or) for each in self.parts)

    def known(self, columns: Columns, rows: int) -> Known:
        return _any([each.known(columns, rows) for each in self.parts])


Node = Comparison | Membership | Nullness | Not | And | Or


def find(columns: Mapping[str, Any], name: str) -> Any | None:
    """The column of that name; a context is found with and without its prefix."""
    for each in (name, CONTEXT_PREFIX + name, name.removeprefix(CONTEXT_PREFIX)):
        if each in columns:
            return columns[each]
    return None


def _is_plain(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and name not in RESERVED


def _within(node: Node, kind: type) -> str:
    """Text of a part, in parentheses where it would bind otherwise."""
    looser = {Not: (And, Or), And: (And, Or), Or: (Or,)}[kind]
    return f"({node.text})" if isinstance(node, looser) else node.text


def _all(parts: list[Known]) -> Known:
    return Known(
        np.logical_and.reduce([each.true for each in parts]),
        np.logical_or.reduce([each.false for each in parts]),
    )


def _any(parts: list[Known]) -> Known:
    return Known(
        np.logical_or.reduce([each.true for each in parts]),
        np.logical_and.reduce([each.false for each in parts]),
    )


def _compared(sign: str, left: Operand, right: Operand, columns: Columns, rows: int) -> Known:
    found = [_side(each, columns) for each in (left, right)]
    nothing = np.zeros(rows, dtype=bool)
    present = ~nothing
    for each in found:
        if each is None:
            return Known(nothing, nothing)
        if isinstance(each, NumberColumn | CategoryColumn):
            present &= _present(each)
    values = _comparable(*found)
    if values is None:
        # Texts and numbers: a context that came as something else than what was meant.
        return Known(nothing, nothing)
    with np.errstate(over="ignore", invalid="ignore"):
        holds = np.broadcast_to(np.asarray(OPERATORS[sign](*values), dtype=bool), (rows,))
    return Known(holds & present, ~holds & present)


def _side(operand: Operand, columns: Columns) -> Any:
    if isinstance(operand, Constant):
        return operand.value
    return find(columns, operand.name)


def _comparable(left: Any, right: Any) -> tuple[Any, Any] | None:
    """Both sides as numbers that compare as they do; None where one is text and one a number."""
    texts = [isinstance(each, CategoryColumn | str) for each in (left, right)]
    if all(texts):
        return _ranks(left, right)
    if any(texts):
        return None
    return _numbers(left), _numbers(right)


def _numbers(side: Any) -> Any:
    if not isinstance(side, NumberColumn):
        return side
    values = side.values
    return values.view(np.uint8) if values.dtype == bool else values


def _ranks(left: CategoryColumn | str, right: CategoryColumn | str) -> tuple[Any, Any]:
    """Places in the sorted texts of both."""
    sides = (left, right)
    given = [[each] if isinstance(each, str) else list(each.dictionary) for each in sides]
    rank = {text: place for place, text in enumerate(sorted({*given[0], *given[1]}))}
    ranks: list[Any] = []
    for side, texts in zip(sides, given, strict=True):
        of = np.array([rank[text] for text in texts] or [0], dtype=np.int64)
        ranks.append(of[0] if isinstance(side, str) else of[side.codes])
    return ranks[0], ranks[1]


def _present(column: ColumnValues) -> Mask:
    if isinstance(column, CategoryColumn):
        return known_codes(column)[1]
    values = column.values
    present = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), dtype=bool)
    return present if column.nulls is None else present & ~column.nulls
