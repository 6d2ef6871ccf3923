"""How far the server is: what it has produced and heard, and what is still under way."""

from dataclasses import dataclass

from homeostat.progress.v1.progress_pb2 import GetProgressResponse
from homeostat_inference.app.truth import CallerMarks
from homeostat_inference.edges.beside import Beside
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.crew import Crew
from homeostat_inference.edges.following import Following
from homeostat_inference.edges.heard_changes import HeardChanges
from homeostat_inference.edges.journal_writer import JournalWriter
from homeostat_inference.edges.journals import Journals
from homeostat_kit.progress import progress_response


@dataclass(frozen=True, slots=True)
class Progress:
    """Reads boards and relays; asks nobody."""

    crew: Crew
    following: Following
    changes: HeardChanges
    beside: Beside
    # The keeper's own.
    journal: JournalWriter
    journals: Journals
    marks: CallerMarks

    async def read(self) -> GetProgressResponse:
        """Everything, as it is now."""
        epoch = self.journals.bus.epoch
        # Read along the flow, so that what moves on in the meantime is counted twice, not missed.
        open_work = self.following.open_work_count + len(self.beside)
        number = self.following.plan.number
        for slot in self.crew.slots:
            open_work += slot.board.get(Word.ROWS_IN_HAND) + slot.board.get(Word.FETCHING)
            open_work += slot.is_ready and slot.told.plan_number < number
        open_work += self.crew.is_shadow_behind
        unsettled = self.journal.unsettled_count
        return progress_response(
            "inference",
            epoch,
            produced=self.journals.produced(epoch),
            applied=self.changes.applied(epoch),
            # A record's mean size is not worth keeping: what counts is whether anything is left.
            unsent_count=unsettled - (-self.journals.unsent_bytes // 4096),
            open_work_count=open_work,
            watermark_us=self._watermark_us(),
        )

    def _watermark_us(self) -> int | None:
        if self.marks.is_explicit:
            return self.marks.mark_us
        marks = [each.board.get(Word.LAST_MARK_US) for each in self.crew.slots]
        return min(marks) if all(marks) else None
