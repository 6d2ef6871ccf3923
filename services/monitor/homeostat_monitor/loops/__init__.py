"""What a monitor does all the time: judging, deepening, rebuilding."""
