"""The documentation is correct: its examples run and type-check, its links and paths exist."""
