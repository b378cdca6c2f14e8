"""Comparison with another implementation of the same model."""
