.PHONY: bench-blocks
bench-blocks: setup ## predictions per second through the monitor; ARGS="--rows 200"
	@$(BIN)/python benchmarks/bench_monitor_blocks.py $(ARGS)
.PHONY: bench-monitor
bench-monitor: setup ## detection beside evidently, nannyml and alibi-detect; ARGS="--seeds 3"
	@$(BIN)/python -m benchmarks.monitor --json build/bench-monitor.json $(ARGS)
.PHONY: bench-monitor-peers
bench-monitor-peers: setup ## installs the peers of bench-monitor, each into an environment of its own
	@$(BIN)/python -m benchmarks.monitor.install
.PHONY: bench-backtest
bench-backtest: setup ## a policy over a million rows of the past; ARGS="--rows 100000"
	@$(BIN)/python benchmarks/bench_backtest.py $(ARGS)
