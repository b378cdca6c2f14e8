"""From an artifact to the object for its task."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import TypeVar

from ..errors import ArtifactError
from .chat.template import read_chat_format
from .engine.machine import give_back_memory
from .engine.session import Device, Kernels, KVCache, Session, open_session
from .folder import open_folder
from .generation.generator import TextGenerator
from .sequence.defaults import GenerationDefaults, read_defaults
from .tasks.answer import QuestionAnswerer
from .tasks.classify import SequenceClassifier
from .tasks.embed import Embedder
from .tasks.tag import TokenClassifier
from .text.tokenizer import Tokenizer, load_tokenizer, try_tokenizer

Read = TypeVar("Read")
Model = TextGenerator | SequenceClassifier | TokenClassifier | QuestionAnswerer | Embedder


def load(
    source: str | Path,
    *,
    device: Device = "cpu",
    threads: int | None = None,
    revision: str | None = None,
    kernels: Kernels = "auto",
    kv_cache: KVCache = "auto",
) -> Model:
    """Load an artifact.

    Args:
        source: the artifact's folder, or the hub id of a repository that holds one.
        device: ``cpu`` or ``cuda``.
        threads: threads of one operator; None for every processor this process may use.
        revision: branch, tag or commit of a hub id.
        kernels: "auto" for our own kernels where they can run; "onnxruntime" for its own.
        kv_cache: of a text-generation artifact: "auto" for the artifact's element type; "int8" for a quarter of the
            memory of float32, and faster steps in long texts, with our own attention on the CPU.

    Raises:
        HubError, ArtifactError, DependencyError, UnsupportedError, UsageError: each names the thing and the remedy.
    """
    folder, manifest = open_folder(source, revision)
    if manifest.parity.verdict == "broken":
        raise ArtifactError(
            f"{folder} is not the model that it was made from: its parity report says broken; "
            f"read {folder / 'parity.html'}, and export the model again"
        )
    opening = partial(
        open_session, folder, manifest, device=device, threads=threads, kernels=kernels, kv_cache=kv_cache
    )
    if manifest.task == "text-generation":
        (tokenizer, defaults), session = _beside(lambda: _reading(folder), partial(opening, windowed=True))
        return TextGenerator(session, tokenizer, defaults, read_chat_format(folder))
    encoder, session = _beside(lambda: load_tokenizer(folder), opening)
    match manifest.task:
        case "text-classification":
            return SequenceClassifier(session, encoder)
        case "token-classification":
            return TokenClassifier(session, encoder)
        case "question-answering":
            return QuestionAnswerer(session, encoder)
        case "feature-extraction":
            return Embedder(session, encoder)


def _reading(folder: Path) -> tuple[Tokenizer | None, GenerationDefaults]:
    tokenizer = try_tokenizer(folder)
    return tokenizer, read_defaults(folder, tokenizer)


def _beside(read: Callable[[], Read], opening: Callable[..., Session]) -> tuple[Read, Session]:
    """What reading gives, and a session that is opened meanwhile; where both fail, the error of reading.

    A tokenizer keeps Python to itself while it is read. So that waits until ONNX Runtime needs no Python any more.
    """
    alone = Event()

    def disabled() -> Iterator[str]:
        alone.set()
        yield from ()

    with ThreadPoolExecutor(1) as executor:
        session = executor.submit(opening, disabled_optimizers=disabled())
        session.add_done_callback(lambda _: alone.set())
        alone.wait()
        found = read()
        opened = session.result()
    give_back_memory()
    return found, opened
