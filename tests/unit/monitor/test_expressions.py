"""Segments' expressions: what is read, which rows they hold for, and how mistakes are told."""

import operator
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat_monitor.domain.segments.expressions import BadExpression, Kind, parse
from homeostat_monitor.domain.segments.nodes import (
    And,
    Column,
    Comparison,
    Constant,
    Membership,
    Node,
    Not,
    Nullness,
    Or,
)
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn

NAMES = {"x": Kind.NUMBER, "wind speed": Kind.NUMBER, "carrier": Kind.TEXT, "or`igin": Kind.TEXT}
TEXTS = ["EV", "AA", 'q"uo\\te', "ü"]
SIGNS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def of_kind(kind: Kind) -> st.SearchStrategy[Any]:
    names = st.sampled_from([name for name, each in NAMES.items() if each is kind])
    return names.map(Column)


def constants(kind: Kind) -> st.SearchStrategy[Any]:
    values: Any = st.sampled_from(TEXTS) if kind is Kind.TEXT else st.integers(-3, 3)
    return values.map(Constant)


def comparisons(kind: Kind) -> st.SearchStrategy[Any]:
    sides = st.one_of(of_kind(kind), constants(kind))
    chain = st.lists(sides, min_size=2, max_size=3).filter(
        lambda each: all(
            isinstance(left, Column) or isinstance(right, Column) for left, right in pairwise(each)
        )
    )
    return chain.flatmap(
        lambda operands: st.lists(
            st.sampled_from(list(SIGNS)), min_size=len(operands) - 1, max_size=len(operands) - 1
        ).map(lambda signs: Comparison(tuple(operands), tuple(signs)))
    )


def leaves() -> st.SearchStrategy[Any]:
    kinds = st.sampled_from(list(Kind))
    lists = kinds.flatmap(
        lambda kind: st.builds(
            Membership,
            of_kind(kind),
            st.lists(constants(kind), min_size=1, max_size=3).map(tuple),
            st.booleans(),
        )
    )
    nulls = st.builds(Nullness, kinds.flatmap(of_kind), st.booleans())
    return st.one_of(kinds.flatmap(comparisons), lists, nulls)


def flat(kind: type, parts: list[Node]) -> Node:
    """And within And is one And, as it is read."""
    inner: list[Node] = []
    for each in parts:
        inner += each.parts if isinstance(each, kind) else [each]
    return kind(tuple(inner))


NODES: st.SearchStrategy[Any] = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: flat(And, parts)),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: flat(Or, parts)),
    ),
    max_leaves=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            name: st.none() | (st.sampled_from(TEXTS) if kind is Kind.TEXT else st.integers(-3, 3))
            for name, kind in NAMES.items()
        }
    ),
    min_size=1,
    max_size=12,
)


def as_columns(rows: list[dict[str, Any]]) -> dict[str, ColumnValues]:
    columns: dict[str, ColumnValues] = {}
    for name, kind in NAMES.items():
        values = [row[name] for row in rows]
        nulls = np.array([each is None for each in values])
        if kind is Kind.TEXT:
            codes = [TEXTS.index(each) if each is not None else 0 for each in values]
            columns[name] = CategoryColumn(np.array(codes, np.int32), TEXTS, nulls)
        elif name == "x":
            columns[name] = NumberColumn(np.array([each or 0 for each in values]), nulls)
        else:
            floats = [float("nan") if each is None else each for each in values]
            columns[name] = NumberColumn(np.array(floats, np.float32))
    return columns


def holds(node: Node, row: Mapping[str, Any]) -> bool | None:
    """Row by row, None for unknown."""
    match node:
        case Not(part):
            return negated(holds(part, row))
        case And(parts):
            return decided([holds(each, row) for each in parts], by=False)
        case Or(parts):
            return decided([holds(each, row) for each in parts], by=True)
        case Nullness(column, is_negated):
            return (row[column.name] is None) is not is_negated
        case Membership(column, values, is_negated):
            value = row[column.name]
            found = None if value is None else value in [each.value for each in values]
            return negated(found) if is_negated else found
    sides = [row[each.name] if isinstance(each, Column) else each.value for each in node.operands]
    compared = [
        None if None in (left, right) else SIGNS[sign](left, right)
        for sign, (left, right) in zip(node.operators, pairwise(sides), strict=True)
    ]
    return decided(compared, by=False)


def negated(found: bool | None) -> bool | None:
    return None if found is None else not found


def decided(found: list[bool | None], *, by: bool) -> bool | None:
    if by in found:
        return by
    return None if None in found else not by


@given(NODES)
def test_the_canonical_text_is_read_as_the_same_expression(node: Node) -> None:
    read = parse(node.text)
    assert read.root == node
    assert read.text == node.text
    read.check(NAMES)


@given(NODES, ROWS)
def test_rows_are_chosen_as_one_by_one_and_null_is_never_true(
    node: Node, rows: list[dict[str, Any]]
) -> None:
    mask = parse(node.text).mask(as_columns(rows), len(rows))
    assert mask.dtype == bool
    assert mask.tolist() == [holds(node, row) is True for row in rows]


@given(st.text(max_size=60) | st.text(alphabet="ab1 \"'`()[]<>=!.,~+-*\\\nintoradl", max_size=60))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    try:
        expression = parse(text)
    except BadExpression as error:
        assert error.at >= 0
    else:
        assert parse(expression.text) == expression


@pytest.mark.parametrize(
    ("text", "canonical", "names"),
    [
        ("`wind speed`>3", "`wind speed` > 3", ("wind speed",)),
        ('column("wind speed") > 3', "`wind speed` > 3", ("wind speed",)),
        ('column("a`b") is  not null', 'column("a`b") is not null', ("a`b",)),
        ("carrier in ('EV', 'AA')", 'carrier in ["EV", "AA"]', ("carrier",)),
        ("context.origin == 'JFK'", 'context.origin == "JFK"', ("context.origin",)),
        ("not (a == 1 or b < 2) and c is null", None, ("a", "b", "c")),
        ("0 <= a < 1.5e3", "0 <= a < 1500.0", ("a",)),
        (" is_late == true ", "is_late == 1", ("is_late",)),
        ("`class` == '`x`'", '`class` == "`x`"', ("class",)),
        ("x == -2", None, ("x",)),
    ],
)
def test_what_can_be_written(text: str, canonical: str | None, names: tuple[str, ...]) -> None:
    expression = parse(text)
    assert expression.text == (canonical or text)
    assert expression.names == names


@pytest.mark.parametrize(
    ("text", "at", "cure"),
    [
        ("", 0, "write one"),
        ('carrier = "EV"', 8, "=="),
        ("a > 1 & b > 2", 4, "'and'"),
        ("a > 1 and b", 10, "comparison is needed"),
        ("a == null", 5, "is null"),
        ("a is 5", 5, "compare values with =="),
        ("1 < 2", 0, "name a column"),
        ("a in []", 5, "list of values"),
        ("a in [1, 'b']", 5, "one kind"),
        ("__import__('os').system('x') == 1", 0, ""),
        ("len(a) > 1", 0, "column("),
        ("[x for x in y] == 1", 0, ""),
        ("(lambda: 1) == 1", 1, ""),
        ('a == f"{b}"', 5, ""),
        ("`a > 1", 0, "backticks"),
        ("a == 1e999", 5, "too large"),
        ("ü == 1 and b == a.b.c", 16, ""),
        ("not " * 30 + "a == 1", 84, "deeper"),
        ("not " * 480 + "a == 1", 0, ""),
        ("(" * 900 + "a == 1" + ")" * 900, 0, ""),
        ("a == 1 or " * 300 + "a == 1", 2000, "at most 2000"),
        ("a in [" + "1," * 300 + "]", 5, "more than 200"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_cure(text: str, at: int, cure: str) -> None:
    with pytest.raises(BadExpression, match=r"^at character \d+: ") as refused:
        parse(text)
    assert cure in str(refused.value)
    if cure:
        assert refused.value.at == at


def test_a_column_that_is_not_there_is_told_with_the_nearest_name() -> None:
    with pytest.raises(BadExpression) as refused:
        parse("x > 1 and carier == 'EV'").check(NAMES)
    assert refused.value.at == 10
    assert "did you mean carrier?" in str(refused.value)
    assert "There are: x, wind speed, carrier" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x == '5'", "column of numbers"),
        ("carrier in [5]", "column of texts"),
        ("carrier < x", "own kind"),
    ],
)
def test_text_compared_with_numbers_is_told(text: str, said: str) -> None:
    with pytest.raises(BadExpression, match=said):
        parse(text).check(NAMES)


def test_a_context_is_found_with_and_without_its_prefix_and_may_be_of_unknown_kind() -> None:
    origin = CategoryColumn(np.array([0, 1], np.int32), ["JFK", "LGA"])
    for text in ("origin == 'JFK'", "context.origin == 'JFK'"):
        parse(text).check({"context.origin": None})
        for name in ("origin", "context.origin"):
            assert parse(text).mask({name: origin}, 2).tolist() == [True, False]


def test_a_column_that_is_not_there_is_null() -> None:
    assert not parse("not (y > 1)").mask({}, 3).any()
    assert parse("y is null").mask({}, 3).all()


def test_float32_is_compared_as_the_client_sent_it() -> None:
    column = NumberColumn(np.array([0.1, 0.2], np.float32))
    assert parse("x == 0.1").mask({"x": column}, 2).tolist() == [True, False]
    assert parse("x < 1e299").mask({"x": column}, 2).tolist() == [True, True]
