"""The artifact folder: the fields of ``intaglio.json``, its reader, and the check of the files against it.

The exporter writes the manifest, the runtime and parity read it; none of them needs torch, onnx or
onnxruntime for that. README.md ("The artifact folder") specifies the format on one page.
"""

import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from .errors import ArtifactError
from .files.foreign_format import foreign_format, is_checkpoint
from .files.json_fields import is_integer, is_number, shown
from .files.json_file import read_json

FORMAT_VERSION = 3
READABLE_VERSIONS = (2, 3)
MANIFEST = "intaglio.json"
GRAPH_FOLDER = "onnx"
"""The folder of the graph and its weights in an artifact, where other runtimes look for them."""
TEMPLATE_FOLDER = "additional_chat_templates"
"""The folder of the chat templates with names of their own, in checkpoints and artifacts."""

FORBIDDEN = "/\\:\0"
"""Characters that no name of a file in an artifact has."""

Task = Literal[
    "text-generation",
    "feature-extraction",
    "text-classification",
    "token-classification",
    "question-answering",
]
Target = Literal["ort", "standard"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
FloatPrecision = Literal["fp32", "fp16", "bf16"]
CacheDtype = Literal["float32", "float16", "bfloat16"]
Attention = Literal["causal", "bidirectional"]
TASKS: tuple[Task, ...] = typing.get_args(Task)
TARGETS: tuple[Target, ...] = typing.get_args(Target)
PRECISIONS: tuple[Precision, ...] = typing.get_args(Precision)
FLOAT_PRECISIONS: tuple[FloatPrecision, ...] = typing.get_args(FloatPrecision)
ATTENTIONS: tuple[Attention, ...] = typing.get_args(Attention)

JSON_KEYS: Mapping[str, str] = {"kl_estimate": "damage"}
"""The keys in ``intaglio.json`` of the fields that have another name there."""

OPTIONAL: Mapping[str, object] = {"adapters": (), "attention": "causal", "calibration": (), "card": None, "notes": ()}
"""The fields that ``intaglio.json`` has only where their value is another one than this."""

SUFFIXES: Mapping[Precision, str] = {"fp32": "", "fp16": "_fp16", "bf16": "_bf16", "int8": "_quantized", "int4": "_q4"}
"""The end of the graph's name by the precision of the weights, as transformers.js names it."""

HALF_SUFFIXES: Mapping[tuple[Precision, CacheDtype], str] = {
    ("int8", "float16"): "_q8f16",
    ("int8", "bfloat16"): "_q8bf16",
    ("int4", "float16"): "_q4f16",
    ("int4", "bfloat16"): "_q4bf16",
}
"""The same of quantized weights between which the arithmetic has 16 bits."""

LONGEST_NAME = 255  # bytes of a file's name, on every common file system
HASH_CHUNK = 1 << 22


@dataclass(frozen=True)
class SourceCard:
    """The terms and languages that the source's model card declares, as its README.md names them."""

    license: str | None
    license_name: str | None
    license_link: str | None
    languages: tuple[str, ...]


@dataclass(frozen=True)
class SourceAdapter:
    """An adapter that was merged into the weights: as a source, and the weight of its change."""

    id: str
    revision: str | None
    digest: str
    weight: float


@dataclass(frozen=True)
class Source:
    """Where the weights came from: hub id or folder name, hub commit, and a digest over the checkpoint's files.

    ``card`` is what its model card declares, None without one. ``adapters`` were merged into the checkpoint's weights.
    """

    id: str
    revision: str | None
    digest: str
    card: SourceCard | None = None
    adapters: tuple[SourceAdapter, ...] = ()


@dataclass(frozen=True)
class ModelFacts:
    """The properties of the model that the runtime needs.

    ``layer_windows`` has one entry per layer: the sliding window in tokens, counting the current one, or None
    for global attention. ``labels`` are the class names in the order of the logits (empty without a class head).
    ``length_dependent_rope`` says that the rotary frequencies depend on the length of the sequence (dynamic,
    longrope), so that a prompt must be prefilled at once. ``cache_dtype`` is the element type of the
    ``past_key_values`` inputs, as numpy names it. ``attention`` is "bidirectional" in encoders whose tokens attend to
    later ones too.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    layer_windows: tuple[int | None, ...]
    context_length: int
    cache_dtype: CacheDtype
    length_dependent_rope: bool = False
    pad_token_id: int | None = None
    labels: tuple[str, ...] = ()
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None
    attention: Attention = "causal"

    @property
    def causal(self) -> bool:
        """Return false if tokens attend to later ones too."""
        return self.attention == "causal"


@dataclass(frozen=True)
class Quantization:
    """The quantization of a weight, and its error.

    ``accuracy_level`` is MatMulNBits': 4 multiplies by int8 activations, 0 by float ones. ``error`` is the root mean
    square of the weight's error over that of the weight. ``kl_estimate`` is the Kullback-Leibler divergence in nats per
    token that the error is estimated to cause by itself; None where nothing was calibrated.
    """

    bits: int
    block_size: int
    symmetric: bool
    method: str
    accuracy_level: int
    error: float
    kl_estimate: float | None = None


@dataclass(frozen=True)
class TensorEntry:
    """One stored initializer: its precision, its shape, and the checkpoint tensors it was made from.

    The codes of a quantized weight have its shape [N, K], before blocks and padding; its scales and zero points are
    entries of their own, without sources.
    """

    precision: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    quantization: Quantization | None = None


@dataclass(frozen=True)
class FileEntry:
    """A file of the artifact: SHA-256 in hex, and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class CalibrationText:
    """A text that weights were calibrated on.

    ``name`` is a file's, "default" for the text that comes with intaglio, or "self" for one that the model generated.
    ``sha256`` is the file's, or that of the generated tokens as int64. ``tokens`` is how many of them were read.
    """

    name: str
    sha256: str
    tokens: int


@dataclass(frozen=True)
class Parity:
    """The verdict of the comparison with the source."""

    verdict: Literal["not checked", "faithful", "drifted", "broken"] = "not checked"


@dataclass(frozen=True)
class Manifest:
    """The whole of ``intaglio.json``.

    ``notes`` say, a sentence each, how the checkpoint was read where its files leave that open. ``calibration`` has the
    texts that weights were calibrated on; it is empty where they were only rounded.
    """

    family: str
    task: Task
    target: Target
    precision: Precision
    source: Source
    model: ModelFacts
    tensors: dict[str, TensorEntry]
    operators: dict[str, int]
    tools: dict[str, str]
    files: dict[str, FileEntry]
    parity: Parity = field(default_factory=Parity)
    format_version: int = FORMAT_VERSION
    notes: tuple[str, ...] = ()
    calibration: tuple[CalibrationText, ...] = ()

    @property
    def graph(self) -> str:
        """The name of the graph's file, relative to the folder."""
        return "model.onnx" if self.format_version == 2 else graph_name(self.precision, self.model.cache_dtype)

    @property
    def data(self) -> str:
        """The name of the weights' file, relative to the folder."""
        return "model.onnx.data" if self.format_version == 2 else data_name(self.graph)

    def to_json(self) -> str:
        return json.dumps(asdict(self, dict_factory=json_object), indent=2, ensure_ascii=False) + "\n"


def graph_name(precision: Precision, cache_dtype: CacheDtype) -> str:
    """Return the name of a graph's file, such as ``onnx/model_q4.onnx``, relative to the artifact's folder."""
    suffix = HALF_SUFFIXES.get((precision, cache_dtype), SUFFIXES[precision])
    return f"{GRAPH_FOLDER}/model{suffix}.onnx"


def data_name(graph: str) -> str:
    """Return the name of the file with the weights of a graph."""
    return f"{graph}_data"


def json_object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dataclass's fields by their keys in ``intaglio.json``: a ``dict_factory`` of ``asdict``."""
    kept = (field for field in fields if field[0] not in OPTIONAL or field[1] != OPTIONAL[field[0]])
    return {JSON_KEYS.get(name, name): value for name, value in kept}


def manifest_name(precision: Precision, default: Precision) -> str:
    """Return the name of a precision's manifest in a folder whose ``intaglio.json`` is that of the default."""
    return MANIFEST if precision == default else f"intaglio.{precision}.json"


def read_manifest(folder: str | Path, precision: Precision | None = None) -> Manifest:
    """Read the manifest of the artifact in a folder.

    Args:
        folder: the artifact's; it may hold artifacts of several precisions.
        precision: which one of several; None for the default, that of ``intaglio.json``.

    Raises:
        ArtifactError: the folder or the manifest is missing, is not JSON, is of another format version, or has a field
            that is missing, unknown or of the wrong type; or there is no artifact of this precision.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ArtifactError(f"{folder} is not an intaglio artifact: {_instead(folder)}")
    try:
        default = _read_manifest(folder / MANIFEST)
    except FileNotFoundError:
        raise ArtifactError(f"{folder} is not an intaglio artifact: {_instead(folder)}") from None
    if precision in (None, default.precision):
        return default
    path = folder / manifest_name(precision, default.precision)
    try:
        manifest = _read_manifest(path)
    except FileNotFoundError:
        there = ", ".join(p for p in PRECISIONS if (folder / manifest_name(p, default.precision)).is_file())
        raise ArtifactError(f"{folder} has no {precision} artifact; choose one that is there: {there}") from None
    if manifest.precision != precision:
        raise ArtifactError(f"{path}: precision is {manifest.precision}, its name says {precision}; copy it again")
    return manifest


def _read_manifest(path: Path) -> Manifest:
    """Read one manifest.

    Raises:
        FileNotFoundError: there is no such file.
        ArtifactError: it cannot be used.
    """
    try:
        data = read_json(path)
    except ValueError as error:
        raise ArtifactError(f"{error}; export the model again") from None
    if not isinstance(data, dict):
        raise ArtifactError(f"{path}: expected a JSON object; export the model again")
    version = data.get("format_version")
    if not is_integer(version) or version not in READABLE_VERSIONS:
        raise ArtifactError(
            f"{path}: format_version is {shown(version)}, this intaglio reads "
            f"{' and '.join(map(str, READABLE_VERSIONS))}; "
            "export the model again, or use the intaglio that wrote it"
        )
    manifest = _parse(Manifest, data, str(path))
    assert isinstance(manifest, Manifest)
    _check(manifest, str(path))
    return manifest


def _instead(folder: Path) -> str:
    """Return what is at a path that has no manifest, and what to do."""
    if not folder.exists():
        return "there is no such folder; make one with `intaglio export`"
    if (foreign := foreign_format(folder)) is not None:
        return f"it {foreign}"
    if is_checkpoint(folder):
        return f"it is a checkpoint; export it with `intaglio export {folder} OUT`"
    if folder.is_file():
        return "it is a file; give the folder of an artifact"
    return f"it has no {MANIFEST}; make one with `intaglio export`"


def sha256_file(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 of a file in hex; call ``advance`` with the number of bytes of each chunk."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(HASH_CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def combined_digest(sums: Mapping[str, str]) -> str:
    """Return the digest over several files, from the SHA-256 of each by its name."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def verify(
    folder: str | Path, manifest: Manifest | None = None, advance: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Compare every file of the artifact with its size and checksum in the manifest; return what is wrong.

    Raises:
        ArtifactError: the manifest itself cannot be read.
    """
    folder = Path(folder)
    problems = []
    for name, entry in (manifest or read_manifest(folder)).files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif (size := path.stat().st_size) != entry.size:
            problems.append(f"{name}: {size:,} bytes, the manifest says {entry.size:,}")
        elif sha256_file(path, advance) != entry.sha256:
            problems.append(f"{name}: its SHA-256 differs from the manifest's")
    return problems


def _check(manifest: Manifest, where: str) -> None:
    """Check what the types cannot: that every value is one that an export can have written."""
    wrong = None
    for name, entry in manifest.files.items():
        # A name that leads elsewhere would have other people's files opened and hashed.
        plain = name.removeprefix(f"{TEMPLATE_FOLDER}/") if name.endswith(".jinja") else name
        if name in (manifest.graph, manifest.data):
            plain = name.removeprefix(f"{GRAPH_FOLDER}/")
        if not plain or plain in (".", "..") or any(c in plain for c in FORBIDDEN) or len(name.encode()) > LONGEST_NAME:
            wrong = f"files: {shown(name)} is not a plain file name"
        elif entry.size < 0:
            wrong = f"files: {name}: size: {entry.size} is not a valid value"
    if manifest.graph not in manifest.files:
        wrong = f"files: {manifest.graph} is missing"
    model = manifest.model
    for name, value in asdict(model).items():
        if isinstance(value, int) and not isinstance(value, bool) and not (name != "pad_token_id") <= value < 2**31:
            wrong = f"model: {name}: {value} is not a valid value"
    if len(model.layer_windows) != model.num_hidden_layers:
        wrong = f"model: layer_windows has {len(model.layer_windows)} entries for {model.num_hidden_layers} layers"
    if any(window is not None and not 1 <= window < 2**31 for window in model.layer_windows):
        wrong = "model: layer_windows: a window is at least 1"
    if any(length < 0 for tensor in manifest.tensors.values() for length in tensor.shape):
        wrong = "tensors: a shape has a negative length"
    for name, tensor in manifest.tensors.items():
        found = tensor.quantization
        if found and (len(tensor.shape) != 2 or found.bits not in (4, 5, 8) or found.block_size < 1):
            wrong = f"tensors: {name}: no such quantization of {len(tensor.shape)} dimensions: {found}"
    if wrong:
        raise ArtifactError(f"{where}: {wrong}; export the model again")


@cache
def _field_types(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields; a manifest has hundreds of objects of one class."""
    return typing.get_type_hints(kind)


def _parse(kind: Any, value: Any, where: str) -> Any:
    """Convert ``value`` from JSON to the annotated type ``kind``; an ArtifactError names the field at fault."""
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ArtifactError(f"{where}: expected an object; export the model again")
        keys = {f.name: JSON_KEYS.get(f.name, f.name) for f in fields(kind)}
        if unknown := set(value) - set(keys.values()):
            raise ArtifactError(f"{where}: unknown field {sorted(unknown)[0]!r}; export the model again")
        if missing := [key for key in keys.values() if key not in value and key not in OPTIONAL]:
            raise ArtifactError(f"{where}: field {missing[0]!r} is missing; export the model again")
        hints = _field_types(kind)
        given = {name: key for name, key in keys.items() if key in value}
        return kind(**{name: _parse(hints[name], value[key], f"{where}: {key}") for name, key in given.items()})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    fits = False
    if origin is types.UnionType or origin is typing.Union:
        if value is None and type(None) in arguments:
            return None
        return _parse(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal:
        fits = value in arguments
    elif origin is tuple and isinstance(value, list):
        return tuple(_parse(arguments[0], item, where) for item in value)
    elif origin is dict and isinstance(value, Mapping):
        return {key: _parse(arguments[1], item, f"{where}: {key}") for key, item in value.items()}
    elif kind is int:
        fits = is_integer(value)
    elif kind is float:
        fits = is_number(value)
    elif isinstance(kind, type):
        fits = isinstance(value, kind)
    if not fits:
        raise ArtifactError(f"{where}: {shown(value)} is not a valid value; export the model again")
    return value
