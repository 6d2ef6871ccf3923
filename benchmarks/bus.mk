.PHONY: bench-bus
bench-bus: setup ## what producing, consuming and relaying blocks costs
	@$(BIN)/python benchmarks/bench_bus.py
