"""Tasks on local data for lm-evaluation-harness: the next sentence of a text, and short functions in Python."""
