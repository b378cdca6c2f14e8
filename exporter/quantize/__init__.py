"""Quantization of weights: decide, measure, solve (``prepare``); the graph's passes then store what was solved."""
