"""The nursery bears processes, tells how they end, and dies with whoever started it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
from tests.support.waiting import eventually

PROGRAM = textwrap.dedent(
    """
    import asyncio, json, os, socket, sys, time
    from homeostat_inference.edges.nursery import Nursery

    def play(told, given):
        if told["what"] == "greet":
            os.write(given[0], str(os.getpid()).encode())
            return 7
        if told["what"] == "fail":
            raise RuntimeError("on purpose")
        time.sleep(600)
        return 0

    nursery = Nursery.start(lambda: None, play)

    async def main():
        nursery.attach()
        ours, theirs = socket.socketpair()
        greeting = await nursery.fork({"what": "greet"}, [theirs.fileno()])
        status = await greeting.ended
        heard = ours.recv(100).decode()
        failing = await nursery.fork({"what": "fail"}, [])
        failed = await failing.ended
        sleeping = await nursery.fork({"what": "sleep"}, [])
        told = {
            "exit": status >> 8,
            "heard": int(heard) == greeting.pid,
            "failed": failed != 0,
            "pids": [nursery.process_id, sleeping.pid],
        }
        print(json.dumps(told), flush=True)
        if sys.argv[1] == "stay":
            time.sleep(600)
        await nursery.died.wait()
        print("died", flush=True)

    asyncio.run(main())
    """
)


def started(tmp_path: Path, argument: str) -> "tuple[subprocess.Popen[str], dict[str, Any]]":
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(script), argument], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if "exit" in told:
            return process, told
    raise AssertionError("it told nothing")


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_what_it_bears_plays_its_part_and_goes_with_whoever_started_all_of_it(
    tmp_path: Path,
) -> None:
    process, told = await asyncio.to_thread(started, tmp_path, "stay")
    assert (told["exit"], told["heard"], told["failed"]) == (7, True, True)
    assert not any(map(is_gone, told["pids"]))
    process.kill()
    process.wait()
    await eventually(lambda: all(map(is_gone, told["pids"])))


async def test_its_own_death_is_told_and_takes_its_children_along(tmp_path: Path) -> None:
    process, told = await asyncio.to_thread(started, tmp_path, "watch")
    nursery, sleeping = told["pids"]
    os.kill(nursery, signal.SIGKILL)
    assert process.stdout is not None
    lines = await asyncio.to_thread(process.stdout.readlines)
    assert lines[-1] == "died\n"
    assert process.wait() == 0
    await eventually(lambda: is_gone(sleeping))
