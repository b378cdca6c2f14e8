"""Quantization methods for one weight: rounding, GPTQ, and scale folding."""
