"""Takes the safeguards of the monitor away, one at a time, in a copy of the last commit, and runs
the tests that have to fail without it. Prints a table; exits with 1 if one did not notice.

    python tools/mutate_monitor.py            all of them
    python tools/mutate_monitor.py lease      those whose names contain a word
    python tools/mutate_monitor.py --check    only whether every mutation still fits the code
"""

import sys

from mutate_inference import Mutation, report

PACKAGE = "services/monitor/homeostat_monitor"
_UNIT, _PROCESS = "tests/unit/monitor", "tests/integration/monitor"
_TRAPS, _STATES = f"{_UNIT}/test_traps.py", f"{_UNIT}/test_states.py"
_HOSTILE = f"{_UNIT}/test_hostile_input.py"
_TOGETHER = f"{_PROCESS}/test_monitor_transactions.py"

_TAKING, _LOSSES, _KEEPING = "app/taking.py", "app/judging_losses.py", "app/keeping.py"


def _mutation(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, file, old, new, tests, PACKAGE)


MUTATIONS = (
    # What a person signs.
    _mutation(
        "the budget is not divided by the looks of a month",
        "domain/detection/budget.py",
        "return min(false_alarms_per_month * pane_us / MONTH_US, 0.5)",
        "return min(false_alarms_per_month, 0.5)",
        f"{_UNIT}/test_multiscale.py",
        "-k",
        "budget",
    ),
    _mutation(
        "the budget is not divided by segments",
        "domain/detection/budget.py",
        "sharers = self.segments + 1 if line.has_segments else 1",
        "sharers = 1",
        f"{_UNIT}/test_budget.py",
    ),
    _mutation(
        "the level is ignored",
        "domain/detection/multiscale.py",
        "self._log_level = math.log(level_per_look)",
        "self._log_level = math.log(0.05)",
        f"{_UNIT}/test_multiscale.py",
        "-k",
        "silent",
    ),
    # Which of two modes, and what the reference itself explains.
    _mutation(
        "every stream is taken for independent rows",
        "domain/calibration.py",
        "    choice = choose_mode(reference, counts)\n",
        '    choice = ModeChoice(Mode.IID, "")\n',
        _TRAPS,
        "-k",
        "moves_by_itself",
    ),
    _mutation(
        "how the reference's own blocks move is ignored",
        "domain/judges/distance.py",
        "thresholds.append(max(FLOOR, natural(measured)))",
        "thresholds.append(FLOOR)",
        f"{_UNIT}/test_ordered.py",
        f"{_UNIT}/test_judges.py",
        "-k",
        "silent",
    ),
    # Traps.
    _mutation(
        "new texts are expected never, not at the rate of Good and Turing",
        "domain/detection/plan.py",
        "reference[starts[number] + bins.unseen] = counts.singletons(name)",
        "reference[starts[number] + bins.unseen] = 0",
        _TRAPS,
        "-k",
        "good_turing",
    ),
    _mutation(
        "texts never seen are compared with rare ones by their distance",
        "domain/judges/covariate.py",
        "    found[..., bins.kept] += found[..., bins.unseen]\n    found[..., bins.unseen] = 0\n",
        "",
        _TRAPS,
        "-k",
        "good_turing",
    ),
    _mutation(
        "a frequent single value has no bin of its own",
        "domain/windows/bins.py",
        "edges = np.unique(np.concatenate([quantiles, atoms, above, ends]))",
        "edges = np.unique(np.concatenate([quantiles, ends]))",
        f"{_UNIT}/test_sums.py",
        "-k",
        "frequent",
    ),
    _mutation(
        "a shift that comes and goes is taken for one that is over",
        "domain/alerts/clear.py",
        " and bool(clear) and begun_us <= max(clear)",
        " and bool(clear)",
        f"{_UNIT}/test_alert_clear.py",
        "-k",
        "comes_and_goes",
    ),
    _mutation(
        "rows that hardly do not breach end an alert",
        "domain/detection/multiscale.py",
        "_LOG_DOUBT = math.log(0.1 * len(SCALES))",
        "_LOG_DOUBT = -20.0",
        f"{_UNIT}/test_alert_clear.py",
        "-k",
        "marginal",
    ),
    # Windows of event time.
    _mutation(
        "truths are judged in the order in which they came",
        _LOSSES,
        "    order = fair_order(known_at, events, (losses, *said), ids)\n",
        "    order = np.argsort(known_at >= before_us, kind='stable')\n",
        _TRAPS,
        "-k",
        "backlog",
    ),
    _mutation(
        "a block that comes again is counted again",
        _TAKING,
        "        if block_id in fresh:\n            fresh.discard(block_id)\n            places",
        "        if True:\n            places",
        _HOSTILE,
        "-k",
        "counts_once",
    ),
    _mutation(
        "a row that no block has is looked up all the same",
        _LOSSES,
        "        of_block = of_block[rows[of_block] < found.masks.shape[1]]\n",
        "",
        _HOSTILE,
        "-k",
        "nobody_made",
    ),
    _mutation(
        "any time is a time",
        "intake/blocks.py",
        "    if not _EARLIEST_US <= at_us < _LATEST_US:\n",
        "    if False:\n",
        _HOSTILE,
        "-k",
        "no_calendar",
    ),
    # What is remembered.
    _mutation(
        "states are not stored",
        _KEEPING,
        "revisions = await self.tx.save_states(self.subject, changed)",
        "revisions = await self.tx.save_states(self.subject, {})",
        _TRAPS,
        "-k",
        "backlog",
    ),
    _mutation(
        "a damaged state is taken",
        "domain/state.py",
        "    if hashlib.sha256(rest).digest() != data[:_DIGEST_BYTES]:\n",
        "    if False:\n",
        _STATES,
        "-k",
        "damage",
    ),
    _mutation(
        "a state is unpacked however large it becomes",
        "domain/state.py",
        "inflate.decompress(packed, sum(sizes) + 1)",
        "inflate.decompress(packed)",
        _STATES,
        "-k",
        "more_than_it_should",
    ),
    # Transactions.
    _mutation(
        "offsets are committed before the effect",
        "intake/bus.py",
        "            await advance_offsets(connection, batch)\n",
        "            await connection.execute('COMMIT; BEGIN')\n"
        "            await advance_offsets(connection, batch)\n"
        "            await connection.execute('COMMIT; BEGIN')\n",
        _TOGETHER,
    ),
    _mutation(
        "alerts are told before the judging is committed",
        "store/alerts.py",
        "        await outbox.put_many(\n",
        "        await self._on.execute('COMMIT; BEGIN')\n        await outbox.put_many(\n",
        _TOGETHER,
    ),
    _mutation(
        "the lease is not checked in the transaction",
        "loops/judging.py",
        "            await lease.check(connection)\n",
        "",
        _TOGETHER,
    ),
)


if __name__ == "__main__":
    sys.exit(report(MUTATIONS, sys.argv[1:]))
