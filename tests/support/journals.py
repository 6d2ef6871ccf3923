"""A journal in memory."""

from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat_inference.app.assembly import Assembler, Sealed
from homeostat_inference.app.ports import Chain, Done, Kind


class MemoryJournal:
    """Keeps records in a list, or refuses them with ``error``; tells it at the next commit."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.records: list[tuple[Kind, bytes]] = []
        self._taken: list[Done] = []

    def append(
        self,
        kind: Kind,
        payload: bytes,
        *,
        done: Done | None = None,
        chain: Chain | None = None,
        must: bool = False,
    ) -> None:
        if self.error is None:
            self.records.append((kind, payload))
        if done is not None:
            self._taken.append(done)

    def commit(self) -> None:
        told, self._taken = self._taken, []
        for done in told:
            done(self.error)

    @property
    def kinds(self) -> list[Kind]:
        """Of what was kept."""
        return [kind for kind, _ in self.records]

    @property
    def blocks(self) -> list[PredictionBlock]:
        """Everything kept, as it goes on the topic; open blocks are taken as ended."""
        assembler = Assembler()
        made = [each for record in self.records for each in assembler.feed(0, *record)]
        made += assembler.end_open(0)
        return [each.block() for each in made if isinstance(each, Sealed)]
