"""Tensors by name, read in ranges: the files of a checkpoint, and what is computed from them on the way."""
