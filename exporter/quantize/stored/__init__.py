"""Weights that a checkpoint stores quantized, carried over into an artifact without rounding them again."""
