"""Weights that a checkpoint stores quantized, one module for each format."""
