.PHONY: bench-serving
bench-serving: setup ## requests per second of inference, on both transports; ARGS="--seconds 10 --json FILE"
	@$(BIN)/python -m benchmarks.bench_serving $(ARGS)
