"""Checked requests on their way to a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from homeostat_inference.app.ports import Call
from homeostat_inference.app.serving import Served
from homeostat_inference.domain.parts import Part
from homeostat_inference.domain.requests import ContextSchema

# What the rows of one block have in common, beside their version.
BlockKey = tuple[bool, int, ContextSchema]


@dataclass(slots=True)
class Waiting:
    """Requests of one shape that came in together."""

    part: Part[Call]
    arm: int
    arrived_at_us: int
    # Monotonic: of its requests, the first deadline and the last.
    deadline_ns: int
    last_deadline_ns: int
    # Whether the rows go into the journal.
    is_logged: bool = True
    # Why its request runs alone, if it has to.
    why: str = ""

    @property
    def rows(self) -> int:
        """Rows of all its requests."""
        return self.part.rows

    @property
    def count(self) -> int:
        """How many requests it is."""
        return len(self.part.items)

    @property
    def block_key(self) -> BlockKey:
        """Rows of different keys stand in different blocks."""
        return self.is_logged, self.arm, self.part.context_schema

    def cut(self, first: int, after: int) -> "Waiting":
        """The requests from ``first`` up to ``after``."""
        return replace(self, part=self.part.cut(first, after))

    def without(self, indexes: Sequence[int]) -> "list[Waiting]":
        """What is left when these requests are taken out."""
        return [replace(self, part=each) for each in self.part.without(indexes)]

    def release(self, served: Served) -> bool:
        """Its requests were answered; False if they were not in hand."""
        part = self.part
        return served.release(part.each, part.size_bytes, len(part.items), self.arrived_at_us)


def taken(waiting: list[Waiting], max_rows: int) -> tuple[list[Waiting], list[Waiting]]:
    """The first requests, up to so many rows but at least one request; and the rest."""
    some: list[Waiting] = []
    room = max_rows
    for at, each in enumerate(waiting):
        fitting = room // each.part.each
        if fitting >= each.count:
            some.append(each)
            room -= each.rows
            continue
        fitting = max(fitting, 0 if some else 1)
        if fitting:
            some.append(each.cut(0, fitting))
        rest = each if not fitting else each.cut(fitting, each.count)
        return some, [*([rest] if rest.count else []), *waiting[at + 1 :]]
    return some, []
