"""Quantize a GGUF file with llama.cpp: python -m intaglio.benchmarks.artifacts.llama_quantize SOURCE.gguf OUT.gguf Q4_0

SOURCE is the checkpoint unquantized, as llama.cpp's ``convert_hf_to_gguf.py --outtype f32`` writes it. A quantized one
is dequantized first, which gives the same where the checkpoint was made from it.
"""

import sys

import llama_cpp  # pyright: ignore[reportMissingImports]  (in its own environment)


def main(source: str, out: str, kind: str) -> None:
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    options.nthread = 2
    options.allow_requantize = True
    if llama_cpp.llama_model_quantize(source.encode(), out.encode(), options) != 0:
        raise SystemExit(f"llama.cpp could not quantize {source} to {kind}")


if __name__ == "__main__":
    main(*sys.argv[1:])
