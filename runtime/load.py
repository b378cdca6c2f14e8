"""From an artifact to the object for its task."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import Literal, TypedDict, TypeVar, Unpack, overload

from ..artifact import PRECISIONS, TASKS, Manifest, Precision, Task
from ..errors import ArtifactError, UsageError
from ..files.chat.template import read_chat_format
from ..files.generation_settings import CheckpointSettings
from ..known_options import refuses_unknown_options
from ..machine import give_back_memory
from .engine.opening import open_session
from .engine.session import Device, Kernels, KVCache, Session
from .folder import open_folder, unchanged
from .generation.generator import TextGenerator
from .sequence.defaults import Override, read_defaults
from .tasks.answer import QuestionAnswerer
from .tasks.classify import SequenceClassifier
from .tasks.embed import Embedder
from .tasks.tag import TokenClassifier
from .text.tokenizer import Tokenizer, load_tokenizer, try_tokenizer

Read = TypeVar("Read")
Model = TextGenerator | SequenceClassifier | TokenClassifier | QuestionAnswerer | Embedder


class LoadOptions(TypedDict, total=False):
    """How to load; ``load`` explains each of them."""

    device: Device
    threads: int | None
    revision: str | None
    precision: Precision | None
    kernels: Kernels
    kv_cache: KVCache
    max_length: int | None
    slots: int | None
    weight_cache: str | Path | None
    generation_config: Override | None


@overload
def load(source: str | Path, *, task: Literal["text-generation"], **options: Unpack[LoadOptions]) -> TextGenerator: ...
@overload
def load(
    source: str | Path, *, task: Literal["text-classification"], **options: Unpack[LoadOptions]
) -> SequenceClassifier: ...
@overload
def load(
    source: str | Path, *, task: Literal["token-classification"], **options: Unpack[LoadOptions]
) -> TokenClassifier: ...
@overload
def load(
    source: str | Path, *, task: Literal["question-answering"], **options: Unpack[LoadOptions]
) -> QuestionAnswerer: ...
@overload
def load(source: str | Path, *, task: Literal["feature-extraction"], **options: Unpack[LoadOptions]) -> Embedder: ...
@overload
def load(source: str | Path, *, task: Task | None = None, **options: Unpack[LoadOptions]) -> Model: ...
@refuses_unknown_options
def load(
    source: str | Path,
    *,
    task: Task | None = None,
    device: Device = "cpu",
    threads: int | None = None,
    revision: str | None = None,
    precision: Precision | None = None,
    kernels: Kernels = "auto",
    kv_cache: KVCache = "exact",
    max_length: int | None = None,
    slots: int | None = None,
    weight_cache: str | Path | None = None,
    generation_config: Override | None = None,
) -> Model:
    """Load an artifact.

    Args:
        source: the artifact's folder, or the hub id of a repository that holds one (``org/name``, or
            ``org/name@revision``).
        task: the task that the artifact must be for, by which a type checker knows the class of the result; None for
            whichever it is for.
        device: ``cpu`` or ``cuda``.
        threads: threads of one operator; None for every processor that this process may use.
        revision: branch, tag or commit of a hub id.
        precision: which artifact, where the folder or the repository holds several; None for its default. Of a
            repository only the files of this one are fetched.
        kernels: "auto" for intaglio's kernels where they can run; "onnxruntime" for ONNX Runtime's.
        kv_cache: for text generation: "exact" for the artifact's element type; "int8" for a quarter of float32's memory
            and faster steps in long texts, which needs intaglio's attention on the CPU; "auto" for int8 where it is
            possible and texts have 8,192 tokens or more, or do not fit into free memory as float32, and the
            artifact's type otherwise. ``session.cache_dtype`` and ``session.kv_cache_reason`` say what was chosen.
        max_length: for kv_cache="auto": the most tokens of a text; None for the model's context.
        slots: for kv_cache="auto": how many texts of this length are in memory at once; None for one.
        weight_cache: a folder of yours for quantized weights as intaglio's kernels read them, on Linux: processes that
            load the same artifact share their memory, and all but the first start sooner. None: each process has its
            own copy.
        generation_config: for text generation: settings instead of the checkpoint's, as a file in the format of
            generation_config.json, or as its keys and values.

    Raises:
        UsageError: the artifact is for another task than ``task``, or an argument is out of its range.
        HubError, ArtifactError, DependencyError, UnsupportedError, OutputError: each names the thing and the remedy.
    """
    if task is not None and task not in TASKS:
        raise UsageError(f"unknown task {task!r}; use one of {', '.join(TASKS)}")
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; use one of {', '.join(PRECISIONS)}")
    folder, manifest = open_folder(source, revision, precision)
    # Checked before the weights are read: loading the wrong model would take its time and memory first.
    if task not in (None, manifest.task):
        raise UsageError(
            f"{folder} is a {manifest.task} artifact, not one for {task}; load it with task={manifest.task!r}, or "
            f"export the model with --task {task}"
        )
    if manifest.parity.verdict == "broken":
        raise ArtifactError(
            f"{folder} is not the model that it was made from: its parity report says broken; "
            f"read {folder / 'parity.html'}, and export the model again"
        )
    with unchanged(folder, manifest):
        opening = partial(
            open_session,
            folder,
            manifest,
            device=device,
            threads=threads,
            kernels=kernels,
            kv_cache=kv_cache,
            max_length=max_length,
            slots=slots,
            weight_cache=None if weight_cache is None else Path(weight_cache),
        )
        return _opened(folder, manifest, opening, generation_config)


def _opened(
    folder: Path, manifest: Manifest, opening: Callable[..., Session], generation_config: Override | None
) -> Model:
    """Read the files and open the session."""
    if manifest.task == "text-generation":
        (tokenizer, defaults), session = _in_parallel(
            lambda: _read_texts(folder, manifest.model.vocab_size, generation_config), partial(opening, windowed=True)
        )
        return TextGenerator(session, tokenizer, defaults, read_chat_format(folder))
    if generation_config is not None:
        raise UsageError(f"generation_config is for text generation, and {folder} is for {manifest.task}; leave it out")
    encoder, session = _in_parallel(lambda: load_tokenizer(folder), opening)
    match manifest.task:
        case "text-classification":
            return SequenceClassifier(session, encoder)
        case "token-classification":
            return TokenClassifier(session, encoder)
        case "question-answering":
            return QuestionAnswerer(session, encoder)
        case "feature-extraction":
            return Embedder(session, encoder)


def _read_texts(
    folder: Path, vocab_size: int, override: Override | None
) -> tuple[Tokenizer | None, CheckpointSettings]:
    """Read the tokenizer, and the defaults of generation that may depend on it."""
    tokenizer = try_tokenizer(folder)
    return tokenizer, read_defaults(folder, tokenizer, vocab_size, override)


def _in_parallel(read: Callable[[], Read], opening: Callable[..., Session]) -> tuple[Read, Session]:
    """Return what ``read`` returns, and a session that is opened meanwhile; if both fail, raise the error of ``read``.

    Reading a tokenizer holds Python's lock, so it starts once ONNX Runtime has read the graph and needs no Python.
    """
    graph_is_read = Event()

    def disabled() -> Iterator[str]:
        graph_is_read.set()
        yield from ()

    with ThreadPoolExecutor(1) as executor:
        session = executor.submit(opening, disabled_optimizers=disabled())
        session.add_done_callback(lambda _: graph_is_read.set())
        graph_is_read.wait()
        found = read()
        opened = session.result()
    give_back_memory()
    return found, opened
