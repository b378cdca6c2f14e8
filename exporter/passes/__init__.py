"""Rewrites of the traced graph, one file each; a pass returns the number of its rewrites."""
