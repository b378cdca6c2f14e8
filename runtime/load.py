"""From an artifact to the object for its task."""

from pathlib import Path

from ..errors import ArtifactError
from .answer import QuestionAnswerer
from .classify import SequenceClassifier
from .defaults import read_defaults
from .embed import Embedder
from .folder import open_folder
from .generate import TextGenerator
from .session import Device, Kernels, open_session
from .tag import TokenClassifier
from .templates import read_chat_format
from .tokenizer import load_tokenizer, try_tokenizer

Model = TextGenerator | SequenceClassifier | TokenClassifier | QuestionAnswerer | Embedder


def load(
    source: str | Path,
    *,
    device: Device = "cpu",
    threads: int | None = None,
    revision: str | None = None,
    kernels: Kernels = "auto",
) -> Model:
    """Load an artifact.

    Args:
        source: the artifact's folder, or the hub id of a repository that holds one.
        device: ``cpu`` or ``cuda``.
        threads: threads of one operator; None for every processor this process may use.
        revision: branch, tag or commit of a hub id.
        kernels: "auto" for our own kernels where they can run; "onnxruntime" for its own.

    Raises:
        HubError, ArtifactError, DependencyError, UnsupportedError, UsageError: each names the thing and the remedy.
    """
    folder, manifest = open_folder(source, revision)
    if manifest.parity.verdict == "broken":
        raise ArtifactError(
            f"{folder} is not the model that it was made from: its parity report says broken; "
            f"read {folder / 'parity.html'}, and export the model again"
        )
    if manifest.task == "text-generation":
        tokenizer = try_tokenizer(folder)
        defaults = read_defaults(folder, tokenizer)
        session = open_session(folder, manifest, device=device, threads=threads, windowed=True, kernels=kernels)
        return TextGenerator(session, tokenizer, defaults, read_chat_format(folder))
    encoder = load_tokenizer(folder)
    session = open_session(folder, manifest, device=device, threads=threads, kernels=kernels)
    match manifest.task:
        case "text-classification":
            return SequenceClassifier(session, encoder)
        case "token-classification":
            return TokenClassifier(session, encoder)
        case "question-answering":
            return QuestionAnswerer(session, encoder)
        case "feature-extraction":
            return Embedder(session, encoder)
