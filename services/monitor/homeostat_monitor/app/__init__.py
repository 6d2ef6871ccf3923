"""Use cases: what the monitor does with what it hears. Each runs inside one transaction."""
