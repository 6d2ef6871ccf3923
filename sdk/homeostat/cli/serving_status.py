"""What one inference server reports of itself, for people."""

from collections.abc import Iterator

from homeostat.cli.shared import console, show_table, when, word
from homeostat.events.v1.column_pb2 import Arm
from homeostat.inference.v1.serving_pb2 import GetServingResponse, Worker, WorkerState


def show_server(answer: GetServingResponse) -> None:
    """Workers, versions, journals, what is held back, losses; troubles last, where one looks."""
    console.print(f"{answer.server_name}, durability {answer.durability}", markup=False)
    show_table("workers", _WORKER_HEADS, map(_worker, answer.workers))
    show_table("versions", _VERSION_HEADS, _versions(answer))
    show_table("journals", _JOURNAL_HEADS, _journals(answer))
    if answer.quarantines:
        show_table("held back after crashes", _QUARANTINE_HEADS, _quarantines(answer))
    lost = {name: count for name, count in sorted(answer.loss_counts.items()) if count}
    told = ", ".join(f"{name} {count}" for name, count in lost.items())
    console.print(f"lost or refused since the start: {told or 'nothing'}", markup=False)
    for each in answer.degraded_reasons:
        console.print("[red]trouble[/red]", end=" ")
        console.print(each, markup=False, highlight=False, soft_wrap=True)
    if not answer.degraded_reasons:
        console.print("all is well", markup=False)


_WORKER_HEADS = (
    "slot",
    "state",
    "process",
    "since",
    "restarts",
    "memory",
    "requests",
    "rows",
    "last end",
)
_VERSION_HEADS = ("model", "version", "arm", "ready workers", "one row", "each further", "trouble")
_JOURNAL_HEADS = ("slot", "bytes", "of", "not yet sent", "")
_QUARANTINE_HEADS = ("model", "version", "input", "crashes", "since", "reason", "cure")


def _worker(of: Worker) -> tuple[object, ...]:
    return (
        of.slot,
        word(WorkerState.Name(of.state), "WORKER_STATE_"),
        of.process_id or "",
        when(of.started_at) if of.HasField("started_at") else "",
        of.restart_count,
        _size(of.memory_bytes),
        of.request_count,
        of.row_count,
        of.last_end,
    )


def _versions(answer: GetServingResponse) -> Iterator[tuple[object, ...]]:
    for each in answer.versions:
        yield (
            each.model_name,
            each.version,
            word(Arm.Name(each.arm), "ARM_"),
            each.ready_workers,
            f"{each.first_row_seconds * 1e3:.3g} ms",
            f"{each.further_row_seconds * 1e3:.3g} ms",
            each.error,
        )


def _journals(answer: GetServingResponse) -> Iterator[tuple[object, ...]]:
    for each in answer.journals:
        yield (
            each.slot,
            _size(each.journal_bytes),
            _size(each.quota_bytes),
            _size(each.unsent_bytes),
            "refuses new rows" if each.is_refusing else "",
        )


def _quarantines(answer: GetServingResponse) -> Iterator[tuple[object, ...]]:
    for each in answer.quarantines:
        cure = f"homeostat serving release {each.model_name} {each.version}"
        yield (
            each.model_name,
            each.version,
            each.input_fingerprint or "all",
            each.crash_count,
            when(each.since_at) if each.HasField("since_at") else "",
            each.reason,
            f"{cure} {each.input_fingerprint}".strip(),
        )


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
