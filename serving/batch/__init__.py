"""Batches without a server: files of requests, and rows of a data set.

``file`` answers a file in the format of OpenAI's Batch API, as ``intaglio batch`` does. ``tasks`` has the callable
classes for ``map_batches`` of Ray Data, and ``job`` runs one over rows, with Ray or without; a job that is interrupted
goes on where it was.
"""
