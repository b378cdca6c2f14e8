"""Rewrites of the traced graph, one file each; a pass returns how often it applied."""
