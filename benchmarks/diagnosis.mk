.PHONY: bench-diagnosis
bench-diagnosis: setup ## how often the diagnosis is right; REFEREE=folder DATA=folder ARGS="--seeds 10"
	@REFEREE="$(REFEREE)" DATA="$(DATA)" $(BIN)/python -m benchmarks.bench_diagnosis --json build/diagnosis.json $(ARGS)
