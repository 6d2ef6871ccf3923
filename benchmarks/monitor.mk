.PHONY: bench-blocks
bench-blocks: setup ## predictions per second through the monitor; ARGS="--rows 200"
	@$(BIN)/python benchmarks/bench_monitor_blocks.py $(ARGS)
