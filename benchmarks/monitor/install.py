"""Environments of the tools that ours is compared with.

python -m benchmarks.monitor.install    what `make bench-monitor-peers` runs
"""

import sys
from pathlib import Path

from benchmarks.environments import Environments

PEERS = Path(__file__).parent / "peers"
NAMES = ("evidently", "nannyml", "alibi")
ENVIRONMENTS = Environments(PEERS, {name: ((name, True),) for name in NAMES})

if __name__ == "__main__":
    sys.exit(1 if ENVIRONMENTS.install() else 0)
