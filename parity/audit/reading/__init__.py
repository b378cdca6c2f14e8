"""A weight as the operators of the graph read it.

layouts (the weight of each node) ─▶ embeddings, five_bits, operands ─▶ stored (bytes, matrices, blocks)
"""
