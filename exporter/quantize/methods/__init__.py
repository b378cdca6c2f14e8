"""How one weight is quantized: rounding, GPTQ, and scales folded into what feeds it."""
