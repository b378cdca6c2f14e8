"""Modules with the weights of a checkpoint: the whole model, or one layer at a time."""
