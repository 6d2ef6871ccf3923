.PHONY: bench-ledger
bench-ledger: setup ## predictions and truths per second through the ledger; ARGS="--rows 300000"
	@$(BIN)/python benchmarks/bench_ledger.py $(ARGS)
