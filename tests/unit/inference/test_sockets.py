"""Where a worker's two servers meet."""

import os
from pathlib import Path

import pytest

from homeostat_inference.edges.transports import _remove, _socket_in, remove_sockets


def test_a_socket_lies_in_the_slots_folder_and_is_removed_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    socket, temporary = _socket_in(tmp_path / "w")
    assert temporary is None and socket == tmp_path / "w" / f"rest-{os.getpid()}.sock"
    socket.touch()
    other = tmp_path / "w" / "lock"
    other.touch()
    remove_sockets(tmp_path / "w")
    assert list((tmp_path / "w").iterdir()) == [other]
    _remove(socket, temporary)


@pytest.mark.parametrize("is_given", [True, False])
def test_a_folder_whose_name_is_too_long_for_a_socket_is_not_used(
    tmp_path: Path, is_given: bool
) -> None:
    socket, temporary = _socket_in(tmp_path / ("x" * 100) if is_given else None)
    assert temporary is not None and socket.parent == temporary and len(str(socket)) < 108
    _remove(socket, temporary)
    assert not temporary.exists()
