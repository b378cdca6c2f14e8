"""How quantized weights are stored: blocks of codes, and the layouts that operators take."""
