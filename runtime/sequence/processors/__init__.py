"""Logits processors: what settings of generation do to the logits before a token is chosen, one kind a file."""
