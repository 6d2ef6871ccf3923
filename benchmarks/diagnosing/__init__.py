"""How often the monitor's diagnosis is right, on injected faults whose cause is known."""
