"""Passes of the calibration text through a decoder, with one layer in memory at a time."""
