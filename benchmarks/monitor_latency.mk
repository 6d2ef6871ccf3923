.PHONY: bench-monitor-latency
bench-monitor-latency: setup ## from the watermark to the alert, everything running; ARGS="--seconds 60 --rows-per-second 20000" or "--monitor-alone"
	@PYTHONPATH=. $(BIN)/python benchmarks/bench_monitor_latency.py --json build/bench-monitor-latency.json $(ARGS)
