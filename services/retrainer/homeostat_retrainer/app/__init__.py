"""What the retrainer does: one run, from its cause to its end."""
