"""Measurements of intaglio and its peers: ``python -m intaglio.benchmarks.runtime`` and its siblings; see README.md."""
