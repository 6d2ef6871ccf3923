.PHONY: bench-advise
bench-advise: setup ## what would make two models cheaper on this machine; ARGS="--seconds 60 --json FILE"
	@$(BIN)/python -m benchmarks.bench_advise $(ARGS)
