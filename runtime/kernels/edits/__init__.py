"""Changes of the graph that let intaglio's kernels run it."""
