"""Edits that make faults in artifacts with the codes of a quantized checkpoint."""

from collections.abc import Callable

import numpy as np

from ..artifact_editor import Array, ArtifactEditor
from .attention import Edit


def recoded(name: str, change: Callable[[Array], Array]) -> Edit:
    """Replace the 4-bit codes [N, K] of a weight, which are stored in blocks, by what ``change`` returns."""

    def edit(editor: ArtifactEditor) -> None:
        packed = editor.array(f"{name}.codes")
        flat = packed.reshape(len(packed), -1)
        codes = np.stack((flat & 15, flat >> 4), -1).reshape(len(flat), -1)
        new = change(codes)
        packed[:] = (new[:, ::2] | (new[:, 1::2] << 4)).reshape(packed.shape)

    return edit


def unsorted(name: str, order: str) -> Edit:
    """Store the codes in the weight's own order of columns, and leave the Gather of the activations."""

    def edit(editor: ArtifactEditor) -> None:
        place = np.argsort(editor.array(order))
        recoded(name, lambda codes: codes[:, place])(editor)

    return edit


def zero_points_lowered(name: str) -> Edit:
    """Subtract 1 from every 4-bit zero point above 0, as a reader of GPTQ's first format that does not add it."""

    def edit(editor: ArtifactEditor) -> None:
        packed = editor.array(f"{name}.zero_points")
        low, high = np.maximum(packed & 15, 1) - 1, np.maximum(packed >> 4, 1) - 1
        packed[:] = low | (high << 4)

    return edit


def not_gathered(module: str) -> Edit:
    """Multiply the sorted codes by the activations in their own order."""

    def edit(editor: ArtifactEditor) -> None:
        (product,) = editor.nodes("MatMulNBits", "MatMul", under=module)[:1]
        gather = product.inputs[0].producer()  # type: ignore[union-attr]
        assert gather is not None
        assert gather.op_type == "Gather"
        product.replace_input_with(0, gather.inputs[0])
        editor.sweep()

    return edit


def without_offsets(module: str) -> Edit:
    """Leave out the product with the offsets."""

    def edit(editor: ArtifactEditor) -> None:
        product = editor.nodes("MatMulNBits", under=module)[0]
        total = next(iter(product.outputs[0].uses())).node
        assert total.op_type == "Add"
        editor.reroute(total.outputs[0], product.outputs[0])
        editor.sweep()

    return edit


def sums_of_others(module: str) -> Edit:
    """Multiply the offsets by block sums of activations that are not sorted as the codes are."""

    def edit(editor: ArtifactEditor) -> None:
        gather = editor.nodes("MatMulNBits", under=module)[0].inputs[0]
        assert gather is not None
        blocks = next(use.node for use in gather.uses() if use.node.op_type == "Reshape")
        blocks.replace_input_with(0, gather.producer().inputs[0])  # type: ignore[union-attr]

    return edit
