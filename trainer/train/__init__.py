"""Training: the loop, what one step does, its optimisers and loss, and its checkpoints."""
