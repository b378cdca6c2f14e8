"""Weights of 5 bits for runtimes without them: a function in the graph's file makes weights of 8 bits of them.

ONNX Runtime inlines the function and computes the codes once, when it loads the graph; intaglio's kernels read the two
parts (``runtime.kernels.edits.low_bits``).
"""

import onnx
import onnx_ir as ir

from ...contract import JOIN_BITS
from ..graph import ExportGraph

VERSION = 1
"""Of the domain."""

_BODY = """
<opset_import: ["" : {opset}], domain: "{domain}">
{name} (high, low) => (codes) {{
    four = Constant <value = uint8 {{4}}> ()
    upper = Constant <value = uint8 {{240}}> ()
    three = Constant <value = uint8 {{3}}> ()
    one = Constant <value = uint8 {{1}}> ()
    places = Constant <value = uint8[8, 1] {{0, 1, 2, 3, 4, 5, 6, 7}}> ()
    last = Constant <value = int64[1] {{-1}}> ()
    before_last = Constant <value = int64[1] {{-2}}> ()
    flat = Constant <value = int64[3] {{0, 0, -1}}> ()
    words = Constant <value = int64[4] {{0, 0, -1, 4}}> ()
    even = BitShift <direction = "LEFT"> (high, four)
    odd = BitwiseAnd (high, upper)
    even_1 = Unsqueeze (even, last)
    odd_1 = Unsqueeze (odd, last)
    pairs = Concat <axis = -1> (even_1, odd_1)
    bytes = Reshape (low, words)
    bytes_1 = Unsqueeze (bytes, before_last)
    moved = BitShift <direction = "RIGHT"> (bytes_1, places)
    bits = BitwiseAnd (moved, one)
    thirds = BitShift <direction = "LEFT"> (bits, three)
    upper_bits = Reshape (pairs, flat)
    lower_bits = Reshape (thirds, flat)
    codes = BitwiseOr (upper_bits, lower_bits)
}}
"""


def join_function(opset: int) -> onnx.FunctionProto:
    """Return the function, in a version of ONNX's operators: 18 or later."""
    domain, name = JOIN_BITS
    function: onnx.FunctionProto = onnx.parser.parse_function(_BODY.format(opset=opset, domain=domain, name=name))
    return function


def join_bits(graph: ExportGraph, before: ir.Node, high: ir.Value, low: ir.Value) -> ir.Value:
    """Join the parts of a weight in a node before another; return codes uint8 [N, KB, size], of 8 bits.

    Args:
        high: uint8 [N, KB, size / 2].
        low: uint8 [N, KB, size / 8]; both as ``contract.JOIN_BITS`` says.
    """
    domain, name = JOIN_BITS
    model = graph.model
    if (domain, name, "") not in model.functions:
        function = ir.serde.deserialize_function(join_function(model.opset_imports[""]))
        model.functions[function.identifier()] = function
        model.graph.opset_imports[domain] = VERSION
    node = ir.Node(domain, name, [high, low], metadata_props=dict(before.metadata_props))
    codes = node.outputs[0]
    assert high.shape is not None
    rows, blocks, half = high.shape
    codes.type, codes.shape = high.type, ir.Shape((rows, blocks, 2 * int(half)))  # type: ignore[arg-type]
    model.graph.insert_before(before, node)
    return codes
