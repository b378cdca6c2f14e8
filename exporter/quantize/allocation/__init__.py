"""The choice of a format for each weight."""
