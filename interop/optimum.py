"""``import intaglio.interop.optimum``: optimum's classes for ONNX Runtime run every artifact, and say what they cannot.

optimum-onnx 0.1 finds a decoder's key-value heads and head_dim by a list of the model types that it knows, and EXAONE
4.0 is not on it. After this import ``ORTModelForCausalLM`` reads both from the graph. A batch that an artifact of
target ``ort`` refuses ends in an error that says what to do.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from ..contract import MASK_CHECK
from ..errors import DependencyError, UnsupportedError

try:
    from optimum.onnxruntime import ORTModelForCausalLM  # pyright: ignore[reportMissingImports]
    from optimum.onnxruntime.modeling import ORTModel  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError as error:
    missing = "optimum-onnx" if str(error.name).startswith("optimum") else error.name
    raise DependencyError(
        f"optimum's classes need the package {missing}, which is not installed; "
        "install it with: pip install 'intaglio[optimum,cpu]'"
    ) from None

PADDED_LEFT = (
    "the batch is padded on the left, or its mask has holes, and the artifact is of target ort, which takes padding on "
    "the right only; {instead}"
)
INSTEAD_OF_A_BATCH = "generate text by text, or export with --target standard"
INSTEAD_OF_THE_LEFT = "load the tokenizer with padding_side='right', or export with --target standard"
PADDED_RIGHT = (
    "the batch is padded on the right, where generate() would read the next token of a shorter text from its padding; "
    "load the tokenizer with padding_side='left', for an artifact of target standard, or generate text by text"
)

Method = Callable[..., Any]


def _with_shapes_of_the_graph(construct: Method) -> Method:
    """Return a constructor after which the first, empty KV cache [B, K, 0, E] has the graph's K and E."""

    @wraps(construct)
    def constructed(self: Any, *arguments: Any, **options: Any) -> None:
        construct(self, *arguments, **options)
        shape = self.input_shapes[self.key_value_input_names[0]] if self.key_value_input_names else []
        if len(shape) == 4 and isinstance(shape[1], int) and isinstance(shape[3], int):
            self.num_key_value_heads, self.embed_size_per_head = shape[1], shape[3]

    return constructed


def _without_unused_inputs(generate: Method) -> Method:
    """Return a ``generate`` that leaves out token_type_ids, which some tokenizers give and the graph does not take.

    Raises:
        UnsupportedError: the batch is padded on the right.
    """

    @wraps(generate)
    def generated(self: Any, *arguments: Any, **options: Any) -> Any:
        if "token_type_ids" not in self.input_names:
            options.pop("token_type_ids", None)
        mask = options.get("attention_mask")
        if mask is not None and not bool(mask[:, -1].all()):
            raise UnsupportedError(PADDED_RIGHT)
        return generate(self, *arguments, **options)

    return generated


def _with_message(call: Method) -> Method:
    """Return a call that says what to do where the graph refuses the attention mask.

    Raises:
        UnsupportedError: a batch is not padded on the right.
    """

    @wraps(call)
    def called(self: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return call(self, *arguments, **options)
        except Exception as error:  # of ONNX Runtime, whose classes have no common one
            if MASK_CHECK not in str(error):
                raise
            generates = isinstance(self, ORTModelForCausalLM)
            instead = INSTEAD_OF_A_BATCH if generates else INSTEAD_OF_THE_LEFT
            raise UnsupportedError(PADDED_LEFT.format(instead=instead)) from error

    return called


ORTModelForCausalLM.__init__ = _with_shapes_of_the_graph(ORTModelForCausalLM.__init__)
ORTModelForCausalLM.generate = _without_unused_inputs(ORTModelForCausalLM.generate)
ORTModel.__call__ = _with_message(ORTModel.__call__)
