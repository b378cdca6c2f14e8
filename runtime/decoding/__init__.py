"""Decoders: a graph, its KV cache, and the sequences that have been read into it."""
