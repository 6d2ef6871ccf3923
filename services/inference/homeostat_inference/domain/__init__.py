"""What a model accepts, what a request says, what a block is: pure computation."""
