"""The contract of an exported graph: the names of its inputs, outputs and node metadata, and the names of its types.

The exporter writes graphs by this contract; the runtime and parity read them by it. The names are those that optimum,
onnxruntime-genai and transformers.js use. B is the batch, S the new tokens, T all tokens, P the past tokens (T - S),
K the KV heads, E head_dim, V the vocabulary, D the hidden size.

    inputs    input_ids int64 [B, S], attention_mask int64 [B, T];
              of text-generation also past_key_values.{layer}.key and .value [B, K, P, E], and the optional
              logits_to_keep int64 [1]: for how many last positions logits are computed (0, unless given: for all)
    outputs   OUTPUTS by task; of text-generation also present.{layer}.key and .value [B, K, T, E]
    metadata  each node has its module's path in the native definition under MODULE_KEY
"""

from collections.abc import Mapping

from .artifact import CacheDtype, FloatPrecision, Task

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
LOGITS_TO_KEEP = "logits_to_keep"
LOGITS = "logits"
OUTPUTS: Mapping[Task, tuple[str, ...]] = {
    "text-generation": (LOGITS,),  # [B, kept, V]
    "feature-extraction": ("last_hidden_state",),  # [B, S, D]
    "text-classification": (LOGITS,),  # [B, labels]
    "token-classification": (LOGITS,),  # [B, S, labels]
    "question-answering": ("start_logits", "end_logits"),  # [B, S] each
}
"""The outputs of each task's graph, without the KV cache; float32 in every precision."""

PAST = "past_key_values."
PRESENT = "present."
CACHE_PARTS = ("key", "value")

MODULE_KEY = "intaglio.module"
"""The metadata key of a node's module path, such as ``model.layers.0.self_attn``."""

MASK_CHECK = "attention_mask/rows_are_ones_then_zeros"
"""The name of the node of target ``ort`` that fails where a row of the attention mask is anything else."""

CACHE_DTYPES: Mapping[FloatPrecision, CacheDtype] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""The element type of the KV cache, by the precision of the activations."""
ACTIVATIONS: Mapping[CacheDtype, FloatPrecision] = {dtype: precision for precision, dtype in CACHE_DTYPES.items()}
"""The precision of the activations, by the element type of the KV cache."""

JOIN_BITS = ("intaglio", "JoinBits")
"""Domain and name of the function, defined in the graph's file, that joins the two parts of weights of 5 bits.

    high    uint8 [N, KB, size / 2]: the upper four bits, two to a byte, the first in the low half
    low     uint8 [N, KB, size / 8]: the lowest bit; of elements 32 s + 4 i + b of a block it is bit i of byte 4 s + b
    codes   uint8 [N, KB, size]: those bits at the top of a byte, and three zeros

A runtime without weights of 5 bits computes the codes when it loads the graph, and has weights of 8 bits then.
"""

BITS: Mapping[str, int] = {"fp32": 32, "fp16": 16, "bf16": 16, "int64": 64, "uint8": 8, "int8": 8, "int5": 4, "int4": 4}
"""Bits of an element of a stored tensor, by its precision in the manifest; int5 has its lowest bits in another."""


def has_cache(task: Task) -> bool:
    """Return true if the task's graph takes and gives a KV cache."""
    return task == "text-generation"


def cache_names(prefix: str, layers: int) -> list[str]:
    """Return the names of the KV cache's tensors, ``prefix`` being PAST or PRESENT, in the order of the graph."""
    return [f"{prefix}{layer}.{part}" for layer in range(layers) for part in CACHE_PARTS]


def input_names(task: Task, layers: int) -> list[str]:
    """Return the names of the inputs that every caller must give, in the order of the graph."""
    return [INPUT_IDS, ATTENTION_MASK, *(cache_names(PAST, layers) if has_cache(task) else [])]


def output_names(task: Task, layers: int) -> list[str]:
    """Return the names of all outputs, in the order of the graph."""
    return [*OUTPUTS[task], *(cache_names(PRESENT, layers) if has_cache(task) else [])]
