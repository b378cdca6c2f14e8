"""The calibration text's way through a decoder, one layer in memory at a time."""
