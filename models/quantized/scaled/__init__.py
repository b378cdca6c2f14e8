"""Weights that are codes or small floats times a scale for each block: what several formats share."""
