"""What the retrainer decides: when to try, on which rows, and what counts as better. No I/O."""
