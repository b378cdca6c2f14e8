"""GGUF, the file format of llama.cpp: header, block types, names, and what a checkpoint folder has beside its weights.

The specification is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""
