"""Train the test checkpoints; ``scripts/make_checkpoints.py`` is the command."""
