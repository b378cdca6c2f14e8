"""The folders of sentence-transformers: their modules read into the defaults of an embedder.

modules.json lists what is done with a text, one after the other: the Transformer with its sentence_bert_config.json,
Pooling, and any number of Dense and Normalize. config_sentence_transformers.json has the prompts.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..errors import CheckpointError, UnsupportedError
from ..files.embedding import ACTIVATIONS, FILE, WEIGHTS, Embedding, Pooling, Step
from ..files.json_fields import JSONFields, shown
from ..files.json_file import read_json, read_object
from ..files.library_errors import library_errors
from ..files.regular_file import is_there

MODULES = "modules.json"
TRANSFORMER = "sentence_bert_config.json"
PROMPTS = "config_sentence_transformers.json"
PATTERNS = (MODULES, TRANSFORMER, PROMPTS, "[0-9]*_*/config.json", "[0-9]*_*/model.safetensors")

MODES: dict[str, Pooling] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weightedmean",
    "lasttoken": "last",
}
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The older keys of Pooling, each with its mode, in the order in which the vectors are concatenated."""

INPUT = "sentence_embedding"


class SentenceTransformer:
    """The modules of a checkpoint folder: ``embedding``, and the weights of its dense layers."""

    def __init__(self, folder: Path, hidden_size: int) -> None:
        """Read the modules.

        Raises:
            CheckpointError: a file is missing or damaged, or sizes do not fit.
            UnsupportedError: a module, or an option of one, is not supported.
        """
        self.folder = folder
        self.weights: dict[str, torch.Tensor] = {}
        self._width = hidden_size
        self._pooling: tuple[Pooling, ...] = ()
        self._include_prompt = True
        self._steps: list[Step] = []
        try:
            self._read_modules()
            self.embedding = self._embedding()
        except ValueError as error:
            raise CheckpointError(f"{error}; fetch the checkpoint again") from None

    def write(self, folder: Path) -> None:
        """Write embedding.json, and embedding.safetensors if there are dense layers."""
        (folder / FILE).write_text(self.embedding.to_json(), encoding="utf-8")
        if self.weights:
            save_file(self.weights, folder / WEIGHTS)

    def _read_modules(self) -> None:
        path = self.folder / MODULES
        entries = read_json(path)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{path}: expected a list of modules")
        for index, entry in enumerate(entries):
            module = JSONFields(entry, f"{path}: module {index}")
            kind, name = module.text("type") or "", module.text("path") or ""
            if Path(name).name != name or "\\" in name or ":" in name or name in (".", ".."):
                raise module.bad("path", "the name of a folder beside it")
            package, _, short = kind.rpartition(".")
            known = package.startswith("sentence_transformers.")
            if known and short == "Transformer" and index == 0:
                if name:
                    raise UnsupportedError(f"{path}: the model is in the folder {name}; export {self.folder / name}")
            elif known and short == "Pooling" and not self._pooling:
                self._read_pooling(self.folder / name / "config.json")
            elif known and short == "Normalize" and self._pooling:
                self._check_input(self.folder / name / "config.json")
                self._steps.append(Step("normalize"))
            elif known and short == "Dense" and self._pooling:
                self._read_dense(self.folder / name)
            elif not (known and short == "Dropout"):  # it does nothing where a model is used
                raise UnsupportedError(
                    f"{path}: module {index} is of the type {shown(kind)}, which is not supported there; supported are "
                    f"Transformer, Pooling, and then Dense and Normalize. Remove {MODULES} to export the model alone"
                )
        if not self._pooling:
            raise UnsupportedError(f"{path}: there is no module Pooling; remove {MODULES} to export the model alone")

    def _read_pooling(self, path: Path) -> None:
        config = JSONFields(read_object(path), str(path))
        for key in ("embedding_dimension", "word_embedding_dimension"):
            if config.integer(key) not in (None, self._width):
                raise config.bad(key, f"{self._width}, the hidden_size of the model")
        names = config.texts("pooling_mode")
        if names is None:
            names = [mode for key, mode in FLAGS.items() if config.boolean(key)] or ["mean"]
        if not names or any(name not in MODES for name in names):
            raise config.bad("pooling_mode", f"one of {', '.join(MODES)}, or a list of them")
        self._pooling = tuple(MODES[name] for name in names)
        self._include_prompt = config.boolean("include_prompt") is not False
        self._width *= len(names)

    def _read_dense(self, folder: Path) -> None:
        config = self._check_input(folder / "config.json")
        function = config.text("activation_function") or "torch.nn.modules.activation.Tanh"
        package, _, short = function.rpartition(".")
        activation = ACTIVATIONS.get(short) if package.startswith("torch.nn") else None
        if activation is None:
            raise UnsupportedError(
                f"{config.where}: activation_function is {shown(function)}, supported are torch.nn's "
                f"{', '.join(ACTIVATIONS)}; remove {MODULES} to export the model alone"
            )
        step, index = Step("dense", activation, config.boolean("use_residual") or False), len(self._steps)
        tensors = _tensors(folder / "model.safetensors")
        width = config.integer("out_features", least=1)
        if width is None:
            raise config.bad("out_features", "a whole number")
        wanted: dict[str, tuple[int, ...]] = {"linear.weight": (width, self._width)}
        if config.boolean("bias") is not False:
            wanted["linear.bias"] = (width,)
        if step.residual and width != self._width:
            wanted["residual.weight"] = (width, self._width)
        for name, shape in wanted.items():
            if name not in tensors or tuple(tensors[name].shape) != shape:
                found = tuple(tensors[name].shape) if name in tensors else "missing"
                raise ValueError(f"{folder / 'model.safetensors'}: {name} is {found}, expected the shape {shape}")
            key = name.removesuffix(".weight").replace("linear.", "").replace("linear", "weight")
            self.weights[f"{index}.{key}"] = tensors[name].float().contiguous()
        self._steps.append(step)
        self._width = width

    def _check_input(self, path: Path) -> JSONFields:
        """Check that a module reads and writes the pooled vector; return its config."""
        config = JSONFields(read_object(path), str(path))
        for key in ("module_input_name", "module_output_name"):
            if config.text(key) not in (None, INPUT):
                raise UnsupportedError(
                    f"{path}: {key} is {shown(config.get(key))}, and only {INPUT} is supported; "
                    f"remove {MODULES} to export the model alone"
                )
        return config

    def _embedding(self) -> Embedding:
        path = self.folder / TRANSFORMER
        model = JSONFields(read_object(path), str(path))
        if model.text("transformer_task") not in (None, "feature-extraction"):
            raise UnsupportedError(
                f"{path}: transformer_task is {shown(model.get('transformer_task'))}, not feature-extraction; "
                f"remove {MODULES} to export the model alone"
            )
        path = self.folder / PROMPTS
        config = JSONFields(read_object(path), str(path))
        entries: dict[str, Any] = {"query": "", "document": ""}  # every model has these two names
        if (prompts := config.fields("prompts")) is not None:
            entries |= {name: prompts.text(name) or "" for name in prompts.values}
        default = config.text("default_prompt_name")
        if default is not None and default not in entries:
            raise config.bad("default_prompt_name", "a name of prompts")
        return Embedding(
            self._pooling,
            self._include_prompt,
            tuple(self._steps),
            model.integer("max_seq_length", least=1),
            model.boolean("do_lower_case") or False,
            entries,
            default,
        )


def read_sentence_transformer(folder: Path, hidden_size: int) -> SentenceTransformer | None:
    """Read the modules of a checkpoint folder; None where it has no modules.json.

    Raises:
        CheckpointError, UnsupportedError: as ``SentenceTransformer``.
    """
    try:
        there = is_there(folder / MODULES)
    except ValueError as error:
        raise CheckpointError(f"{error}; fetch the checkpoint again") from None
    return SentenceTransformer(folder, hidden_size) if there else None


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    if not is_there(path):
        pickles = sorted(one.name for one in path.parent.glob("*.bin"))
        if pickles:
            raise UnsupportedError(
                f"{path.parent / pickles[0]} is a pickle, which can run any code when opened, and is not read; convert "
                "it to safetensors first"
            )
        raise ValueError(f"{path} is missing")
    with library_errors(lambda reason: ValueError(f"{path} cannot be read ({reason})")):
        return load_file(path)
