.PHONY: bench-start-up
bench-start-up: setup ## seconds from nothing to ready, of the whole and of each service
	@$(BIN)/python benchmarks/bench_start_up.py
