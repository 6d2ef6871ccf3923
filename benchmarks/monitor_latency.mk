.PHONY: bench-monitor-latency
bench-monitor-latency: setup ## from the watermark to the alert under load; ARGS="--seconds 60 --models 100 --rows-per-second 20000"
	@PYTHONPATH=. $(BIN)/python benchmarks/bench_monitor_latency.py $(ARGS)
