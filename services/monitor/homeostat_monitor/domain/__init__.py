"""What the monitor decides: windows, sums, judges, losses, alerts. No I/O."""
