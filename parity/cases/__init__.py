"""The cases in which source and artifact are compared."""
