"""The documentation is true: its examples run and type-check, its links and paths exist."""
