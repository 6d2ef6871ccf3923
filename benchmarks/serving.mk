BENCH_SERVING = $(BIN)/python -m benchmarks.serving
.PHONY: bench-serving
bench-serving: setup ## inference beside its peers, into build/bench-serving.{md,json}; ARGS="--rounds 1"
	@$(BENCH_SERVING) --json build/bench-serving.json --table build/bench-serving.md $(ARGS)
.PHONY: bench-serving-peers
bench-serving-peers: setup ## installs the peers of bench-serving, each into an environment of its own
	@$(BIN)/python -m benchmarks.serving.install
.PHONY: bench-swaps
bench-swaps: setup ## 200 versions swapped under load; ARGS="--servers ours-durable"
	@$(BENCH_SERVING) --only swaps --servers ours-fast --json build/bench-swaps.json $(ARGS)
.PHONY: bench-overload
bench-overload: setup ## three times the capacity, a flood beside a light load, a shadow
	@$(BENCH_SERVING) --only overload,fairness,shadow --servers ours-fast --json build/bench-overload.json $(ARGS)
.PHONY: bench-memory
bench-memory: setup ## memory with three models, and its slope over a million requests
	@$(BENCH_SERVING) --only memory --servers ours-fast --json build/bench-memory.json $(ARGS)
