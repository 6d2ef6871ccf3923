"""One alert per lasting shift: how it opens, what it says, how it ends, who is told."""
