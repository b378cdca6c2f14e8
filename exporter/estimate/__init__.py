"""An estimate of a quantization before it runs: the size of the weights, the time, the peak of memory."""
