"""What the monitor holds: no library for a few of its lines, and nothing that is over."""

import subprocess
import sys

import numpy as np

from homeostat_kit import memory


def test_the_loss_detector_brings_no_data_science_packages() -> None:
    """River's package imports pandas, scipy.stats and scikit-learn: 70 MB."""
    code = (
        "import sys; from homeostat_monitor.domain.losses.watch import LossWatch;"
        "LossWatch.seeded(None, is_binary=True);"
        "print(*({'pandas', 'sklearn', 'scipy', 'pyarrow'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_the_process_serves_before_it_imports_what_only_judging_needs() -> None:
    """Each takes as long as everything else together on a busy machine."""
    code = (
        "import sys, homeostat_monitor.main;"
        "print(*({'pandas', 'sklearn', 'scipy', 'pyarrow'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_giving_back_takes_nothing_that_is_in_use() -> None:
    kept = [np.full(1000, number) for number in range(1000)]
    memory.give_back()
    assert all((each == number).all() for number, each in enumerate(kept))
