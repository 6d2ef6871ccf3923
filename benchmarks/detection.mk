.PHONY: bench-detection bench-natural bench-null bench-null-monitor
bench-detection: setup ## the monitor's detectors under a referee; REFEREE=<folder> DATA=<folder> ARGS="--seeds 10"
	@$(BIN)/python benchmarks/bench_detection.py --referee $(REFEREE) --data $(DATA) $(ARGS)

bench-null: setup ## false alarms on streams where nothing happens, against the signed budget; ARGS="--streams 1000"
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/null_streams.py $(ARGS)

bench-null-monitor: setup ## false alarms of the whole monitor where nothing happens, against the budget; ARGS="--streams 20"
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/null_monitor.py $(ARGS)

bench-natural: setup ## the time-ordered detector on streams as they came, no fault injected; REFEREE=<folder> DATA=<folder> ARGS="--streams elec2"
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/bench_natural.py --referee $(REFEREE) --data $(DATA) $(ARGS)
