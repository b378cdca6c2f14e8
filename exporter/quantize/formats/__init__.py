"""Storage of quantized weights: blocks of codes, and the layouts that operators take."""
