"""What makes the trained test checkpoints; ``scripts/make_checkpoints.py`` is the way in."""
