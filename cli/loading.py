"""Load the artifact of a verb's ARTIFACT argument."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..artifact import Precision, Task
from ..errors import UsageError
from .show import echo

if TYPE_CHECKING:
    from ..runtime import TextGenerator
    from ..runtime.engine.session import Device, KVCache
    from ..runtime.load import LoadOptions

VERB_OF_TASK: dict[Task, str] = {
    "text-generation": "generate",
    "text-classification": "classify",
    "token-classification": "tag",
    "question-answering": "answer",
    "feature-extraction": "embed",
}


@dataclass(frozen=True)
class Loading:
    """The options of the command line with which an artifact is loaded."""

    device: "Device"
    threads: int | None
    revision: str | None
    kv_cache: "KVCache" = "exact"
    generation_config: Path | None = None
    precision: Precision | None = None

    def options(self) -> "LoadOptions":
        """Return the options of ``intaglio.runtime.load``, without the revision."""
        options: LoadOptions = {
            "device": self.device,
            "threads": self.threads,
            "kv_cache": self.kv_cache,
            "precision": self.precision,
        }
        if self.generation_config is not None:
            options["generation_config"] = self.generation_config
        return options


def find_artifact(artifact: str, task: Task, loading: Loading) -> Path:
    """Return the folder of an artifact, given as a folder or a hub id, before its weights are read.

    Raises:
        UsageError: it is for another task; the message names the verb to use.
        ArtifactError, HubError: as ``intaglio.runtime.folder.open_folder``.
    """
    from ..runtime.folder import open_folder

    folder, manifest = open_folder(artifact, loading.revision, loading.precision)
    if manifest.task != task:
        verb = VERB_OF_TASK[manifest.task]
        raise UsageError(f"{artifact} is a {manifest.task} artifact; run it with `intaglio {verb} {artifact}`")
    return folder


def name_artifacts(given: Sequence[str]) -> dict[str, str]:
    """Return artifacts by name, given as ``NAME=ARTIFACT``, or as a folder or a hub id, which then names itself.

    A folder has its last part as its name.

    Raises:
        UsageError: a name is empty or occurs twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, artifact = text.partition("=")
        if not equals or Path(text).exists():  # the path of a folder may have an equals sign
            artifact, is_folder = text, Path(text).exists()
            name = Path(text).resolve().name if is_folder else text.partition("@")[0]
        if not name or not artifact:
            raise UsageError(f"{text!r} is not NAME=ARTIFACT; write it like small=out/int4")
        if name in found:
            raise UsageError(
                f"{found[name]} and {artifact} would both be called {name!r}; name one of them: NAME={artifact}"
            )
        found[name] = artifact
    return found


def load_generator(artifact: str, loading: Loading, max_length: int | None = None) -> "TextGenerator":
    """Load a text-generation artifact; print on standard error which KV cache ``auto`` chose.

    Args:
        max_length: the most tokens of a text, for ``--kv-cache auto``; None for the model's context.

    Raises:
        UsageError, ArtifactError, HubError: as ``find_artifact``.
        UnsupportedError, DependencyError: as ``intaglio.runtime.load``.
    """
    from ..runtime import load

    folder = find_artifact(artifact, "text-generation", loading)
    options = loading.options()
    if loading.kv_cache == "auto":
        options["max_length"] = max_length
    model = load(folder, task="text-generation", **options)
    if loading.kv_cache == "auto":
        echo(f"KV cache: {model.session.cache_dtype}, for {model.session.kv_cache_reason}", err=True)
    return model


def load_draft(artifact: str, loading: Loading, max_length: int | None = None) -> "TextGenerator":
    """Load a draft model with the options of the model that it drafts for; a hub id at its default revision."""
    return load_generator(artifact, Loading(loading.device, loading.threads, None, loading.kv_cache), max_length)
