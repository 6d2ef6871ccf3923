"""The language that names segments: ``carrier == "EV" and not temperature >= 40``.

Columns are named bare (``carrier``, ``context.origin``), in backticks (``\\`wind speed\\```), or as
``column("wind speed")``. There are numbers, texts, ``== != < <= > >=`` (also chained), ``in [...]``
and ``not in [...]``, ``is null`` and ``is not null``, ``and``, ``or``, ``not``, parentheses.

It is read by Python's own parser and never run: only the nodes named here are taken.
"""

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.segments.checks import BadExpression, check, columns_of
from homeostat_monitor.domain.segments.nodes import (
    And,
    Column,
    Columns,
    Comparison,
    Constant,
    Kind,
    Membership,
    Node,
    Not,
    Nullness,
    Operand,
    Or,
)

__all__ = ["BadExpression", "Expression", "Kind", "parse"]

MOST_CHARACTERS = 2_000
MOST_DEPTH = 20
MOST_VALUES = 200
_SIGNS: Mapping[type[ast.cmpop], str] = MappingProxyType(
    {
        ast.Eq: "==",
        ast.NotEq: "!=",
        ast.Lt: "<",
        ast.LtE: "<=",
        ast.Gt: ">",
        ast.GtE: ">=",
    }
)
_LARGEST = 1e300


@dataclass(frozen=True, slots=True)
class Expression:
    """Some of the rows."""

    root: Node

    @property
    def text(self) -> str:
        """The canonical form; parses to the same."""
        return self.root.text

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that it asks for, each once, in the order of the text."""
        return tuple(dict.fromkeys(each.name for each in columns_of(self.root)))

    def mask(self, columns: Columns, rows: int) -> NDArray[np.bool_]:
        """Which of ``rows`` rows it holds for, bool, shape (rows,).

        A comparison with null, with a column that is not there, or of a text with a number is
        neither true nor false; such a row is in the segment only if the rest decides it.
        A float32 column is compared in float32: ``x == 0.1`` means what a client sent as 0.1.
        """
        return self.root.known(columns, rows).true

    def check(self, kinds: Mapping[str, Kind | None]) -> None:
        """BadExpression where it asks for a column that is not in ``kinds``, or compares text with
        numbers. A kind of None is not known (a context that no row has brought yet)."""
        check(self.root, kinds)


def parse(text: str) -> Expression:
    """Reads an expression; BadExpression where it is none."""
    if len(text) > MOST_CHARACTERS:
        raise BadExpression(
            f"the expression has {len(text)} characters, at most {MOST_CHARACTERS}; "
            "make several segments of it",
            MOST_CHARACTERS,
        )
    if not text.strip():
        raise BadExpression('there is no expression; write one like carrier == "EV"', 0)
    return Expression(_Reader(text).read())


class _Reader:
    """One text on its way to nodes."""

    def __init__(self, text: str) -> None:
        # Python would read an indented line as a block.
        self._skipped = len(text) - len(text.lstrip())
        plain = "".join(" " if each in "\r\n\t\f" else each for each in text.strip())
        self._source, self._quoted = _without_backticks(plain, self._skipped)
        self._bytes = self._source.encode("utf-8", "replace")

    def read(self) -> Node:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(self._source, mode="eval")
        except SyntaxError as error:
            at = max((error.offset or 1) - 1, 0)
            said = _cure_of_syntax(self._source[at : at + 1], str(error.msg))
            raise BadExpression(said, self._skipped + at) from None
        except (ValueError, RecursionError, MemoryError):
            raise BadExpression("this can't be read; write it simpler", self._skipped) from None
        return self._node(tree.body, 0)

    def _at(self, node: ast.expr) -> int:
        """Python counts bytes."""
        return self._skipped + len(self._bytes[: node.col_offset].decode("utf-8", "replace"))

    def _bad(self, node: ast.expr, what: str) -> BadExpression:
        return BadExpression(what, self._at(node))

    def _node(self, node: ast.expr, depth: int) -> Node:
        if depth > MOST_DEPTH:
            raise self._bad(node, f"nested deeper than {MOST_DEPTH}; make several segments of it")
        if isinstance(node, ast.BoolOp):
            parts = tuple(self._node(each, depth + 1) for each in node.values)
            return And(parts) if isinstance(node.op, ast.And) else Or(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Not(self._node(node.operand, depth + 1))
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        raise self._bad(node, _cure_of(node))

    def _comparison(self, node: ast.Compare) -> Node:
        first = node.ops[0]
        if isinstance(first, ast.Is | ast.IsNot | ast.In | ast.NotIn):
            if len(node.ops) > 1:
                raise self._bad(node, "don't chain 'in' and 'is'; join comparisons by 'and'")
            column = self._operand(node.left)
            if not isinstance(column, Column):
                raise self._bad(node.left, "a column's name has to stand before 'in' and 'is'")
            if isinstance(first, ast.In | ast.NotIn):
                values = self._list(node.comparators[0])
                return Membership(column, values, isinstance(first, ast.NotIn))
            return self._nullness(column, node, isinstance(first, ast.IsNot))
        return self._chain(node)

    def _nullness(self, column: Column, node: ast.Compare, is_negated: bool) -> Nullness:
        right = node.comparators[0]
        if not _is_null(right):
            raise self._bad(right, "'is' asks for null only; compare values with ==")
        return Nullness(column, is_negated)

    def _chain(self, node: ast.Compare) -> Comparison:
        signs = [_SIGNS.get(type(each)) for each in node.ops]
        operands = tuple(self._operand(each) for each in (node.left, *node.comparators))
        known = tuple(sign for sign in signs if sign is not None)
        if len(known) < len(signs):
            raise self._bad(node, "don't chain 'in' and 'is'; join comparisons by 'and'")
        comparison = Comparison(operands, known)
        for _, left, right in comparison.pairs():
            if isinstance(left, Constant) and isinstance(right, Constant):
                raise BadExpression("two constants are compared; name a column", left.at)
        return comparison

    def _operand(self, node: ast.expr) -> Operand:
        name = self._name(node)
        if name is not None:
            return Column(name, self._at(node))
        return self._constant(node)

    def _name(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Name):
            if node.id == "null":
                raise self._bad(node, "null is compared by 'is null' or 'is not null'")
            if node.id in ("true", "false"):
                return None
            return self._quoted.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return f"{node.value.id}.{node.attr}"
        if isinstance(node, ast.Call):
            return self._called(node)
        return None

    def _called(self, node: ast.Call) -> str:
        is_column = isinstance(node.func, ast.Name) and node.func.id == "column"
        match node.args if is_column and not node.keywords else None:
            case [ast.Constant(value=str(name))]:
                return name
            case _:
                raise self._bad(node, 'nothing can be called here but column("its name")')

    def _constant(self, node: ast.expr) -> Constant:
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            node = node.operand
            if not isinstance(node, ast.Constant) or isinstance(node.value, str | bool):
                raise self._bad(node, "a sign can only stand before a number")
        value = _plain_value(node)
        if value is None:
            raise self._bad(node, _cure_of(node))
        if isinstance(value, str):
            return Constant(value, self._at(node))
        if not abs(value) < _LARGEST:
            raise self._bad(node, "the number is too large")
        return Constant(sign * value, self._at(node))

    def _list(self, node: ast.expr) -> tuple[Constant, ...]:
        if not isinstance(node, ast.List | ast.Tuple | ast.Set) or not node.elts:
            raise self._bad(node, 'after "in" comes a list of values, for example ["EV", "AA"]')
        if len(node.elts) > MOST_VALUES:
            raise self._bad(node, f"the list has more than {MOST_VALUES} values")
        values = tuple(self._constant(each) for each in node.elts)
        if len({each.kind for each in values}) > 1:
            raise self._bad(node, "the list holds texts and numbers; a column has one kind only")
        return values


def _plain_value(node: ast.expr) -> float | str | None:
    if isinstance(node, ast.Name) and node.id in ("true", "false"):
        return int(node.id == "true")
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return int(node.value) if isinstance(node.value, bool) else node.value
    return None


def _is_null(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "null") or (
        isinstance(node, ast.Constant) and node.value is None
    )


def _without_backticks(text: str, skipped: int) -> tuple[str, Mapping[str, str]]:
    """Names in backticks become identifiers as long as they were, so that places stay."""
    # A letter that the text does not have: nobody's name is taken for one of these.
    letters = (chr(code) for code in range(0x4E00, 0x9FA5) if chr(code) not in text)
    quoted: dict[str, str] = {}
    done, at = "", 0
    while at < len(text):
        each = text[at]
        end = at
        if each in "\"'`":
            end = _closing(text, at)
            if each == "`" and (end < 0 or end == at + 1):
                raise BadExpression("a name in backticks is not closed or empty", skipped + at)
        if each == "`":
            stand_in = next(letters) * (end + 1 - at)
            quoted[stand_in] = text[at + 1 : end]
            done += stand_in
        else:
            end = len(text) - 1 if end < 0 else end
            done += text[at : end + 1]
        at = end + 1
    return done, quoted


def _closing(text: str, at: int) -> int:
    """Where the quote that opens at ``at`` closes; -1: nowhere."""
    quote, place = text[at], at + 1
    while place < len(text):
        if text[place] == "\\" and quote != "`":
            place += 1
        elif text[place] == quote:
            return place
        place += 1
    return -1


def _cure_of(node: ast.expr) -> str:
    if isinstance(node, ast.BinOp):
        return "there is no arithmetic here; for & and | write 'and' and 'or'"
    if isinstance(node, ast.UnaryOp):
        return "write 'not' instead of ~"
    if isinstance(node, ast.Name | ast.Constant | ast.Attribute):
        return "a comparison is needed here, for example distance >= 500 or is_late == true"
    return 'only comparisons joined by and, or, not can stand here, for example carrier == "EV"'


def _cure_of_syntax(stands_there: str, said: str) -> str:
    if stands_there == "=" or "Maybe you meant '=='" in said:
        return "equality is written =="
    if "unterminated string" in said:
        return "a text is not closed; end it with the quote that it begins with"
    return f"{said}; names with spaces stand in backticks, texts in quotes"
