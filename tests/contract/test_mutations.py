"""Every mutation of the tools that take safeguards away still has its line in the code."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("tool", ["mutate_inference", "mutate_monitor"])
def test_every_safeguard_that_can_be_taken_away_is_where_the_tool_looks_for_it(tool: str) -> None:
    checked = subprocess.run(
        [sys.executable, f"tools/{tool}.py", "--check"],
        stdout=subprocess.PIPE,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout.decode()
