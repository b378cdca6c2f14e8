"""Where in a model a node of its graph stands, with the layers added up."""

import re

LAYER = re.compile(r"(?:^|\.)layers\.\d+\.")


def place(node: str, operator: str) -> str:
    """A node's module without its layer's number, and its operator: ``mlp.up_proj MatMulNBits``.

    Nodes outside every module are the graph's own; a matrix product among them is the LM head.
    """
    module = LAYER.split(node.rpartition("/")[0])[-1].removeprefix("model.")
    return f"{module or ('lm_head' if operator.startswith('MatMul') else 'graph')} {operator}"
