"""Several conditions as one, as short as a person would write it."""

from collections.abc import Sequence

from homeostat_monitor.domain.segments.nodes import (
    And,
    Column,
    Comparison,
    Constant,
    Membership,
    Node,
)


def conjunction(conditions: Sequence[Node]) -> Node:
    """All of them: bounds of one column become one range, excluded values one list."""
    ranges: dict[str, dict[str, float]] = {}
    excluded: dict[str, list[Constant]] = {}
    parts: list[Node | tuple[str, str]] = []
    for each in conditions:
        match each:
            case Comparison(
                (Column(name), Constant(float() | int() as value)), ("<" | ">=" as sign,)
            ):
                bounds = ranges.setdefault(name, {})
                tighter = min if sign == "<" else max
                bounds[sign] = tighter(bounds.get(sign, value), value)
                parts.append(("range", name))
            case Comparison((Column(name), Constant(str()) as value), ("!=",)):
                excluded.setdefault(name, []).append(value)
                parts.append(("excluded", name))
            case _:
                parts.append(each)
    joined = [
        (_range if each[0] == "range" else _excluded)(each[1], ranges, excluded)
        if isinstance(each, tuple)
        else each
        for each in dict.fromkeys(parts)
    ]
    return joined[0] if len(joined) == 1 else And(tuple(joined))


def _range(
    name: str, ranges: dict[str, dict[str, float]], _: dict[str, list[Constant]]
) -> Comparison:
    column, bounds = Column(name), ranges[name]
    if len(bounds) == 1:
        ((sign, value),) = bounds.items()
        return Comparison((column, Constant(value)), (sign,))
    return Comparison((Constant(bounds[">="]), column, Constant(bounds["<"])), ("<=", "<"))


def _excluded(
    name: str, _: dict[str, dict[str, float]], excluded: dict[str, list[Constant]]
) -> Node:
    values = tuple(excluded[name])
    if len(values) == 1:
        return Comparison((Column(name), values[0]), ("!=",))
    return Membership(Column(name), values, True)
