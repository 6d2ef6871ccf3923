"""What a slot does with a process that takes more memory than it may."""

import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from homeostat_inference.edges.slots import READY, STARTING, WorkerSlot

MIB = 1 << 20


def a_slot(monkeypatch: pytest.MonkeyPatch, state: str) -> tuple[WorkerSlot, list[str]]:
    """A slot whose process may take 100 MiB, and what was done to that process."""
    done: list[str] = []
    slot = WorkerSlot(
        "worker-0", 0, cast(Any, None), cast(Any, None), memory_bytes=100 * MIB, may_overlap=False
    )
    child = SimpleNamespace(send_signal=lambda number: done.append(signal.Signals(number).name))
    monkeypatch.setattr(slot, "_process", SimpleNamespace(child=child))
    monkeypatch.setattr(slot, "recycle", lambda why: done.append(f"recycled: {why}"))
    slot.state = state
    return slot, done


@pytest.mark.parametrize(
    ("memory_mib", "state", "expected"),
    [
        (99, READY, []),
        (149, READY, ["recycled: it held 149 MiB, 100 MiB are allowed"]),
        (149, STARTING, []),
        (151, READY, ["SIGKILL"]),
        (151, STARTING, ["SIGKILL"]),
    ],
)
def test_a_process_that_takes_far_more_than_it_may_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, memory_mib: int, state: str, expected: list[str]
) -> None:
    slot, done = a_slot(monkeypatch, state)
    slot._weigh(memory_mib * MIB)
    assert done == expected
