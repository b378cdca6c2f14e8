"""Loaded artifacts, and the threads that run them."""
