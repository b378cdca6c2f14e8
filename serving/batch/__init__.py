"""Batches: requests of a file, or rows of a data set, without a server."""
