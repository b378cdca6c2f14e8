"""Weights whose codes are packed into int32 words along rows or columns: what GPTQ, AWQ and auto-round share."""
