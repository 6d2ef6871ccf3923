"""Every mutation of tools/mutate_inference.py still has its line in the code."""

import subprocess
import sys


def test_every_safeguard_that_can_be_taken_away_is_where_the_tool_looks_for_it() -> None:
    checked = subprocess.run(
        [sys.executable, "tools/mutate_inference.py", "--check"],
        stdout=subprocess.PIPE,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout.decode()
