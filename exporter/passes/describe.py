"""What a graph's file says of itself, for a reader who has nothing but this file: Netron, or a tool that lists models.

Nothing reads it back: the manifest is what the runtime goes by.
"""

import re
from collections.abc import Mapping

import onnx_ir as ir

from ... import __version__
from ...artifact import FORMAT_VERSION, Precision, Source, Target, Task
from ...contract import ATTENTION_MASK, INPUT_IDS, LOGITS_TO_KEEP, PAST, PRESENT

PREFIX = "intaglio."
"""The prefix of the keys in the model's metadata that only intaglio defines."""
OPERATORS: Mapping[Target, str] = {"ort": "ONNX Runtime's operators", "standard": "the operators of ai.onnx alone"}
MASKS: Mapping[bool, str] = {
    True: "1 for a token, 0 for padding, which is on the right",
    False: "1 for a token, 0 for padding, on any side",
}
VALUES: Mapping[str, str] = {
    INPUT_IDS: "token ids",
    LOGITS_TO_KEEP: "how many of the last positions get logits; 0, the default of an optional input, means all",
    "logits": "float32, before any softmax",
    "start_logits": "float32: for each token to begin the answer",
    "end_logits": "float32: for each token to end the answer",
    "last_hidden_state": "float32: the final norm's output",
}
_CACHE = re.compile(rf"(?:{re.escape(PAST)}|({re.escape(PRESENT)}))(\d+)\.(key|value)")


def describe(
    model: ir.Model, family: str, task: Task, target: Target, precision: Precision, source: Source, padded_right: bool
) -> None:
    """Set the model's producer, documentation and metadata, and the documentation of its inputs and outputs.

    The same source gives the same texts.

    Args:
        padded_right: padding may only follow a row's tokens.
    """
    identifier = _encodable(source.id)
    revision = f" at revision {source.revision}" if source.revision else ""
    names = [_encodable(one.id) for one in source.adapters]
    merged = f" with the adapter {' and '.join(names)}" if names else ""
    model.producer_version = __version__
    model.doc_string = (
        f"{identifier}{revision}{merged}: {family} for {task} in {precision}, with {OPERATORS[target]}. The weights, "
        "the tokenizer and the manifest intaglio.json are in the files that it came with."
    )
    facts = {
        "format_version": str(FORMAT_VERSION),
        "family": family,
        "task": task,
        "target": target,
        "precision": precision,
        "source": identifier,
        "source_revision": source.revision,
        "source_digest": source.digest,
        "adapters": ", ".join(names),
    }
    model.metadata_props.update({f"{PREFIX}{key}": value for key, value in facts.items() if value})
    if source.card is not None and source.card.license is not None:
        model.metadata_props["model_license"] = source.card.license  # a key of ONNX (docs/MetadataProps.md)
    values = {**VALUES, ATTENTION_MASK: MASKS[padded_right]}
    for value in (*model.graph.inputs, *model.graph.outputs):
        cache = _CACHE.fullmatch(value.name or "")
        if cache is not None:
            present, layer, part = cache.groups()
            value.doc_string = f"{part}s of layer {layer}, {'the new tokens included' if present else 'of past tokens'}"
        else:
            value.doc_string = values[value.name or ""]


def _encodable(text: str) -> str:
    """Return the text with what UTF-8 cannot encode replaced: a folder's name may be any bytes."""
    return text.encode("utf-8", "replace").decode("utf-8")
