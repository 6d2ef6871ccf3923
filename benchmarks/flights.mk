.PHONY: bench-flights
bench-flights: setup ## the main job: 3 months, then 11, figures as JSON in build/
	@mkdir -p build
	@$(BIN)/homeostat demo flights --months 3 --json build/flights-3.json --report build/flights-3.html
	@$(BIN)/homeostat demo flights --months 11 --json build/flights-11.json --report build/flights-11.html
