"""How an embedder makes one vector of a text's hidden states: embedding.json of an artifact.

The exporter writes it where the checkpoint is a folder of sentence-transformers, and the runtime takes its defaults
from it. The weights of dense layers are in embedding.safetensors, as float32.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from .json_fields import JSONFields
from .json_file import read_object
from .regular_file import is_there

FILE = "embedding.json"
WEIGHTS = "embedding.safetensors"

Pooling = Literal["last", "mean", "cls", "max", "mean_sqrt_len", "weightedmean"]
Activation = Literal["Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
POOLING_OF: Mapping[str, Pooling] = {mode: mode for mode in POOLINGS}
ACTIVATIONS: Mapping[str, Activation] = {name: name for name in get_args(Activation)}


@dataclass(frozen=True)
class Step:
    """What is done with the pooled vector: scaled to length 1 ("normalize"), or put through a dense layer ("dense").

    The weights of the dense layer are the tensors ``N.weight`` [out, in], ``N.bias`` [out] and ``N.residual``
    [out, in], the last two if it has them; N is the index of the step. ``residual`` adds the layer's input to its
    output.
    """

    kind: Literal["normalize", "dense"]
    activation: Activation = "Identity"
    residual: bool = False


@dataclass(frozen=True)
class Embedding:
    """The defaults of an embedder.

    ``pooling`` has the modes whose vectors are concatenated. Without ``include_prompt`` the tokens of the prompt are
    not pooled. ``max_length`` is the most tokens of a text; ``lower_case`` makes small letters of it.
    """

    pooling: tuple[Pooling, ...] = ("last",)
    include_prompt: bool = True
    steps: tuple[Step, ...] = (Step("normalize"),)
    max_length: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None

    def to_json(self) -> str:
        """Return the text of embedding.json."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_embedding(folder: Path) -> Embedding | None:
    """Read embedding.json; None where there is none.

    Raises:
        ValueError: the file cannot be read. The message names it and the key.
    """
    path = folder / FILE
    if not is_there(path):
        return None
    fields = JSONFields(read_object(path), str(path))
    pooling = fields.texts("pooling") or []
    modes: list[Pooling] = []
    for name in pooling:
        if name not in POOLING_OF:
            raise fields.bad("pooling", f"a list of {', '.join(POOLINGS)}")
        modes.append(POOLING_OF[name])
    if not modes:
        raise fields.bad("pooling", f"a list of {', '.join(POOLINGS)}")
    entries = fields.fields("prompts")
    prompts = {} if entries is None else {name: entries.text(name) or "" for name in entries.values}
    default = fields.text("default_prompt_name")
    if default is not None and default not in prompts:
        raise fields.bad("default_prompt_name", "a name of prompts")
    return Embedding(
        pooling=tuple(modes),
        include_prompt=fields.boolean("include_prompt") is not False,
        steps=tuple(_step(entry) for entry in fields.list_of_fields("steps") or []),
        max_length=fields.integer("max_length", least=1),
        lower_case=fields.boolean("lower_case") or False,
        prompts=prompts,
        default_prompt_name=default,
    )


def _step(entry: JSONFields) -> Step:
    kind, activation = entry.text("kind"), entry.text("activation") or "Identity"
    known = ACTIVATIONS.get(activation)
    if known is None:
        raise entry.bad("activation", f"one of {', '.join(ACTIVATIONS)}")
    if kind == "normalize":
        return Step("normalize")
    if kind == "dense":
        return Step("dense", known, entry.boolean("residual") or False)
    raise entry.bad("kind", "normalize or dense")
