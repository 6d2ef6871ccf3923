"""How good a model is: rolling figures with intervals, and an estimate where truths are missing."""
