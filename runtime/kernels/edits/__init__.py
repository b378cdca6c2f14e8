"""Edits of a loaded graph that intaglio's kernels need."""
