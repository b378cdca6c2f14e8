"""The names of an adapter's tensors: which module each belongs to, and which part of the adapter it is.

peft writes ``base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight``. Before "lora_A" is the module's path in
the class that was trained (``model.`` before the trunk, ``transformer.`` for question answering, nothing for the bare
model); behind it the adapter's name may stand, as in a state dict.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...errors import CheckpointError, UnsupportedError
from ..reading.layout import WRAPPERS

OUTER = "base_model.model."
TRUNKS = ("model.language_model.", "language_model.model.", "model.", "transformer.", "")
HEADS = ("lm_head", "score", "qa_outputs")
MATRICES = frozenset({"lora_A", "lora_B"})
PARAMETERS = frozenset(
    """lora_embedding_A lora_embedding_B lora_magnitude_vector ia3_l trainable_tokens_delta hada_w1_a hada_w1_b
    hada_w2_a hada_w2_b lokr_w1 lokr_w1_a lokr_w1_b lokr_w2 lokr_w2_a lokr_w2_b""".split()
)
BIAS = "lora_B.bias"
_RELATIVE = re.compile(r"layers\.(?:0|[1-9]\d{0,5})\.[a-z0-9_.]+|embed_tokens|norm")


@dataclass(frozen=True)
class PartName:
    """A tensor's place: the module's path in the trained class, its path in the trunk or the head's name, and the part.

    ``part`` is one of MATRICES and PARAMETERS, BIAS, or "weight" or "bias" of the module itself, which the tensor then
    takes the place of.
    """

    module: str
    relative: str
    part: str


def read_names(names: Iterable[str], where: str) -> dict[str, PartName]:
    """Return the place of each tensor.

    Raises:
        UnsupportedError: a name is not one that peft gives.
        CheckpointError: two tensors are the same part, or belong to different adapters.
    """
    found: dict[str, PartName] = {}
    places: dict[tuple[str, str], str] = {}
    adapters: set[str] = set()
    for name in names:
        path, part, adapter = _split(name, where)
        relative = _relative(path)
        if relative is None:
            raise UnsupportedError(
                f"{where}: tensor {name[:200]} belongs to no module of a supported family; the adapter was trained on "
                "another architecture"
            )
        if (relative, part) in places:
            raise CheckpointError(
                f"{where}: tensors {places[relative, part][:200]} and {name[:200]} are both {part} of {relative}; "
                "remove the one that does not count"
            )
        places[relative, part] = name
        adapters |= {adapter} - {""}
        found[name] = PartName(path, relative, part)
    if len(adapters) > 1:
        raise CheckpointError(
            f"{where} holds several adapters ({', '.join(sorted(adapters)[:4])}); save each in a folder of its own"
        )
    return found


def trunk_of(parts: Mapping[str, PartName]) -> str:
    """Return what precedes the trunk's modules in the trained class; "model." where the adapter has none of them."""
    for place in parts.values():
        if place.relative not in HEADS:
            return place.module.removesuffix(place.relative)
    return "model."


def _split(name: str, where: str) -> tuple[str, str, str]:
    """Return a tensor's module, its part, and the adapter's name, "" without one."""
    parts = [one for one in name.removeprefix(OUTER).split(".") if one not in WRAPPERS]
    for index, one in enumerate(parts):
        if one in MATRICES or one in PARAMETERS:
            module, rest = parts[:index], parts[index + 1 :]
            if one == "trainable_tokens_delta" and module[-1:] == ["token_adapter"]:
                module.pop()
            last = rest.pop() if rest and rest[-1] in ("weight", "bias") else ""
            fits = last == "weight" or (one == "lora_B" and last == "bias") or (one in PARAMETERS and not last)
            if len(rest) <= 1 and fits:
                part = BIAS if last == "bias" else one
                return ".".join(module), part, "".join(rest)
            break
        if one == "modules_to_save" and index + 1 < len(parts):
            # with the adapter's name behind it, unless the tensor's own part follows
            last = parts[-1]
            rest = parts[index + 1 : -1]
            if last in ("weight", "bias") and len(rest) <= 1:
                return ".".join(parts[:index]), last, "".join(rest)
            break
    else:
        if len(parts) > 1 and parts[-1] in ("weight", "bias"):
            module = parts[:-1]
            if module[-1] == "base_layer":
                module.pop()
            return ".".join(module), parts[-1], ""
    raise UnsupportedError(
        f"{where}: tensor {name[:200]} is no part of an adapter that is merged; merge it with peft (merge_and_unload)"
    )


def _relative(module: str) -> str | None:
    """Return a module's path in the trunk, or a head's name; None for others."""
    if module in HEADS:
        return module
    for prefix in TRUNKS:
        if module.startswith(prefix) and _RELATIVE.fullmatch(module.removeprefix(prefix)):
            return module.removeprefix(prefix)
    return None
