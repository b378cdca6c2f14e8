"""A name for the same node of every layer."""

import re

LAYER = re.compile(r"(?:^|\.)layers\.\d+\.")


def layerless(node: str, operator: str) -> str:
    """Return a node's module without the layer's number, and its operator: ``mlp.up_proj MatMulNBits``.

    A node outside every module belongs to ``graph``; a matrix multiplication there is the LM head's.
    """
    module = LAYER.split(node.rpartition("/")[0])[-1].removeprefix("model.")
    return f"{module or ('lm_head' if operator.startswith('MatMul') else 'graph')} {operator}"
