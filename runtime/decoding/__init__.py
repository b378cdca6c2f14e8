"""A graph that decodes, its KV cache, and the slots whose tokens are in it."""
