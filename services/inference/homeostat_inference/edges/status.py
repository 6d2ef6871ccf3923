"""What the server says of itself: workers, versions, journals, losses, and what is wrong."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from homeostat.events.v1.column_pb2 import (
    ARM_CANARY,
    ARM_CHAMPION,
    ARM_FALLBACK,
    ARM_PINNED,
    ARM_SHADOW,
)
from homeostat.events.v1.serving_pb2 import Batching
from homeostat.inference.v1.serving_pb2 import (
    WORKER_STATE_DEAD,
    WORKER_STATE_LEAVING,
    WORKER_STATE_READY,
    WORKER_STATE_STARTING,
    GetServingResponse,
    JournalState,
    Quarantine,
    ServedVersion,
    Worker,
    WorkerState,
)
from homeostat_inference.app.plan import BatchingPlan, ModelPlan
from homeostat_inference.app.supervising import CrashBook
from homeostat_inference.domain.blocks import timestamp
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.following import Following
from homeostat_inference.edges.journal_writer import JournalWriter
from homeostat_inference.edges.slot_relay import SlotRelay
from homeostat_inference.edges.slot_watch import DEAD, LEAVING, READY, STARTING
from homeostat_inference.edges.slots import WorkerSlot
from homeostat_kit.kafka import Bus

# A journal that refused something lately is refusing.
_REFUSING_SECONDS = 5.0
_STATES: Mapping[str, WorkerState.ValueType] = {
    STARTING: WORKER_STATE_STARTING,
    READY: WORKER_STATE_READY,
    LEAVING: WORKER_STATE_LEAVING,
    DEAD: WORKER_STATE_DEAD,
}
# Losses that a worker counts, by the name under which they are told.
_WORKERS_LOSSES = {
    "requests_refused": Word.REFUSED,
    "requests_failed": Word.FAILED,
    "records_not_kept": Word.JOURNAL_REFUSED,
    "rows_held_back": Word.HELD_BACK,
    "runs_ended_at_deadline": Word.OVERDUE,
    "rows_not_sampled": Word.SAMPLED_OUT,
    "rows_shed": Word.SHED,
}


@dataclass(slots=True)
class Status:
    """Reads boards and relays; asks nobody."""

    server_name: str
    durability: str
    quota_bytes: int
    bus: Bus
    following: Following
    crashes: CrashBook
    journal: JournalWriter
    slots: Sequence[WorkerSlot]
    shadow: WorkerSlot
    relays: Mapping[str, SlotRelay]
    # By journal: what it had refused at the last look, and when that rose last.
    _refused: dict[str, tuple[int, float]] = field(default_factory=dict)

    def serving(self) -> GetServingResponse:
        """Everything, read now."""
        return GetServingResponse(
            server_name=self.server_name,
            durability=self.durability,
            degraded_reasons=self.degraded_reasons(),
            workers=[_worker(each) for each in self.slots],
            versions=self._versions(),
            journals=[self._journal_state(name) for name in self.relays],
            quarantines=[
                Quarantine(
                    model_name=each.model_name,
                    version=each.version,
                    input_fingerprint=each.input_fingerprint,
                    crash_count=each.crash_count,
                    reason=each.reason,
                    since_at=timestamp(each.since_us),
                )
                for each in self.crashes.held
            ],
            loss_counts=self.loss_counts(),
        )

    def loss_counts(self) -> dict[str, int]:
        """Everything that was lost or refused since the start; all names, always."""
        counts = {
            name: sum(each.counts.of(word) for each in self.slots)
            for name, word in _WORKERS_LOSSES.items()
        }
        counts["records_not_kept"] += self.journal.refused_count
        relays = self.relays.values()
        counts["records_too_large_for_the_broker"] = sum(
            each.steps.skipped_count for each in relays
        )
        counts["records_unreadable"] = sum(each.steps.unreadable_count for each in relays)
        counts["blocks_set_aside_by_the_ledger"] = sum(
            each.forgetting.set_aside_count for each in relays
        )
        counts["journal_bytes_damaged"] = sum(each.damaged_bytes for each in relays)
        writers = [*self.slots, self.shadow]
        counts["journal_files_abandoned"] = self.journal.abandoned_count + sum(
            each.counts.of(Word.DISK_ERRORS) for each in writers
        )
        counts["journal_bytes_cut"] = self.journal.cut_bytes + sum(
            each.counts.of(Word.JOURNAL_CUT_BYTES) for each in writers
        )
        counts["shadow_rows_skipped"] = self.shadow.counts.of(Word.SHADOW_SKIPPED_ROWS)
        counts["shadow_rows_failed"] = self.shadow.counts.of(Word.FAILED)
        counts["shadow_records_not_kept"] = self.shadow.counts.of(Word.JOURNAL_REFUSED)
        counts["worker_crashes"] = sum(each.crash_count for each in self.slots)
        counts["versions_not_loaded"] = len(self._unloadable())
        return counts

    def is_losing(self) -> bool:
        """Whether what is answered now can't be kept, and is refused or shed for it."""
        return any(self._is_refusing(name) for name in self.relays)

    def degraded_reasons(self) -> list[str]:
        """One sentence per trouble, each with its cure."""
        return [
            *self._of_the_world(),
            *(reason for name in self.relays for reason in self._of_journal(name)),
            *(
                f"worker {each.index} ends again and again ({each.last_end}): "
                "see its log, and roll back or quarantine the version that was loaded last"
                for each in self.slots
                if each.is_failing and not each.is_ready
            ),
            *(
                f"worker {each.index} takes more memory than it may, and so does a fresh one: "
                "raise HOMEOSTAT_INFERENCE_WORKER_MEMORY_BYTES, or serve fewer or smaller versions"
                for each in self.slots
                if each.is_swollen
            ),
            *(
                f"model {name!r} version {version} can't be loaded ({reason}): "
                "promote another version, or register it anew"
                for (name, version), reason in self._unloadable().items()
            ),
            *self._of_switches(),
            *self._of_quarantine(),
        ]

    def _of_the_world(self) -> list[str]:
        reasons = []
        away = self.bus.away_seconds
        if away is not None:
            reasons.append(
                f"the broker has been away for {_lately(away)}: start it; "
                "answers are kept in the journals until then"
            )
        since = self.following.away_since
        if since is not None:
            reasons.append(
                f"the registry has been away for {_lately(time.monotonic() - since)}: start it; "
                "what served last goes on"
            )
        return reasons

    def _of_journal(self, name: str) -> list[str]:
        if self._is_refusing(name):
            return [
                f"the journal of {name} refuses records: give its disk space, or raise "
                "journal_quota_bytes, or bring back broker and ledger"
            ]
        if self.relays[name].trouble:
            return [
                f"the journal of {name} can't be read ({self.relays[name].trouble}): see to its "
                "disk; nothing of it is sent until then"
            ]
        if self.relays[name].size_bytes > self.quota_bytes // 2:
            return [
                f"the journal of {name} is over half its quota: bring back the broker or the "
                "ledger, or raise journal_quota_bytes"
            ]
        return []

    def _of_switches(self) -> list[str]:
        """Whoever threw a switch has to know that nobody stands behind it."""
        unloadable = self._unloadable()
        return [
            f"model {name!r} is switched to its fallback, version {model.fallback}, which can't be "
            f"loaded ({unloadable[name, model.fallback]}): set another fallback version, "
            "or promote one and switch back"
            for name, model in self.following.planner.models.items()
            if model.is_on_fallback
            and model.fallback is not None
            and (name, model.fallback) in unloadable
        ]

    def _of_quarantine(self) -> list[str]:
        return [
            (
                f"model {each.model_name!r} version {each.version} is held back: {each.reason}; "
                if not each.input_fingerprint
                else f"an input of model {each.model_name!r} version {each.version} is held back: "
                f"{each.reason}; "
            )
            + f"release it with `homeostat serving release {each.model_name} {each.version}`"
            for each in self.crashes.held
        ]

    def _is_refusing(self, name: str) -> bool:
        if name not in {each.name for each in self.slots}:
            count = self.journal.refused_count if name == "keeper" else 0
        else:
            slot = next(each for each in self.slots if each.name == name)
            count = slot.counts.of(Word.JOURNAL_REFUSED)
        before, rose_at = self._refused.get(name, (0, -_REFUSING_SECONDS))
        if count > before:
            rose_at = time.monotonic()
        self._refused[name] = (count, rose_at)
        return time.monotonic() - rose_at < _REFUSING_SECONDS

    def _journal_state(self, name: str) -> JournalState:
        relay = self.relays[name]
        return JournalState(
            slot=name,
            journal_bytes=relay.size_bytes,
            quota_bytes=self.quota_bytes,
            unsent_bytes=relay.unsent_bytes,
            is_refusing=self._is_refusing(name),
        )

    def _unloadable(self) -> dict[tuple[str, int], str]:
        wanted = {
            (name, each)
            for name, model in self.following.planner.models.items()
            for each in (*model.versions(), *model.shadows)
        }
        found = {k: reason for k, reason in self.following.failures.items() if k in wanted}
        found |= {
            key: "the workers that tried ended, or refused it"
            for key in self.following.planner.unfit
            if key in wanted
        }
        for slot in (*self.slots, self.shadow):
            found |= {k: reason for k, reason in slot.told.failed.items() if k in wanted}
        return found

    def _versions(self) -> list[ServedVersion]:
        plan = self.following.plan
        found = [
            self._version(model, version, arm)
            for model in self.following.planner.models.values()
            for version, arm in _arms(model)
        ]
        for name, model in plan.models.items():
            asked = self.following.planner.models.get(name)
            if model.champion is not None and asked and asked.champion != model.champion:
                # It goes on until the next one can be loaded.
                found.append(self._version(model, model.champion, ARM_CHAMPION))
        for name, version in plan.pinned:
            model = plan.models.get(name) or ModelPlan(name, 0)
            found.append(self._version(model, version, ARM_PINNED))
        return found

    def _version(self, model: ModelPlan, version: int, arm: int) -> ServedVersion:
        key = (model.name, version)
        who = [self.shadow] if arm == ARM_SHADOW else self.slots
        loaded = [each.told.loaded[key] for each in who if key in each.told.loaded]
        ready = [each for each in self.slots if each.is_ready]
        is_followed = all(each.told.plan_number >= self.following.plan.number for each in ready)
        served = ServedVersion(
            model_name=model.name,
            version=version,
            arm=arm,  # type: ignore[arg-type]
            ready_workers=len(loaded),
            first_row_seconds=loaded[0].first_row_seconds if loaded else 0.0,
            further_row_seconds=loaded[0].further_row_seconds if loaded else 0.0,
            error=self._unloadable().get(key, ""),
            model_revision=model.revision if ready and is_followed else 0,
        )
        if model.batching != BatchingPlan():
            served.batching.CopyFrom(
                Batching(
                    max_rows=model.batching.max_rows,
                    max_delay_seconds=model.batching.max_delay_seconds,
                    preferred_rows=model.batching.preferred_rows,
                )
            )
        return served


def _arms(model: ModelPlan) -> list[tuple[int, int]]:
    found = []
    if model.champion is not None:
        found.append((model.champion, int(ARM_CHAMPION)))
    if model.canary is not None:
        found.append((model.canary.version, int(ARM_CANARY)))
    if model.fallback is not None:
        found.append((model.fallback, int(ARM_FALLBACK)))
    found += [(each, int(ARM_SHADOW)) for each in model.shadows]
    return found


def _worker(slot: WorkerSlot) -> Worker:
    return Worker(
        slot=slot.index,
        state=_STATES[slot.state],
        process_id=slot.process_id,
        started_at=timestamp(slot.started_at_us),
        restart_count=slot.restart_count,
        last_end=slot.last_end,
        memory_bytes=slot.memory_bytes,
        request_count=slot.counts.of(Word.REQUESTS),
        row_count=slot.counts.of(Word.ROWS),
    )


def _lately(seconds: float) -> str:
    """In steps, so that the sentence does not change with each look."""
    for limit, text in ((60, "less than a minute"), (600, "minutes"), (7200, "many minutes")):
        if seconds < limit:
            return text
    return "hours"
