"""The monitor's detection beside evidently, nannyml and alibi-detect, on the same episodes."""
