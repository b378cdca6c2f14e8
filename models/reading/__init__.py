"""How a checkpoint is read: the keys of its config, the names of its tensors, and what its caller says about it."""
