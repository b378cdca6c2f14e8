"""From the ARTIFACT argument to the runtime object of the task that a verb is for."""

from typing import TypeVar

from ..artifact import Task, read_manifest
from ..errors import UsageError

VERB_OF_TASK: dict[Task, str] = {
    "text-generation": "generate",
    "text-classification": "classify",
    "token-classification": "tag",
    "question-answering": "answer",
    "feature-extraction": "embed",
}
PATTERNS = ("*.onnx", "*.onnx.data*", "*.json", "*.jinja")

Runner = TypeVar("Runner")


def load_as(
    kind: type[Runner], task: Task, artifact: str, *, device: str, threads: int | None, revision: str | None
) -> Runner:
    """Load an artifact, a folder or a hub id, as ``kind``, the runtime's class for ``task``.

    Raises:
        UsageError: the artifact is one of another task; the message says which verb runs it.
        ArtifactError, HubError, DependencyError: as ``intaglio.runtime.load``.
    """
    from ..hub import resolve
    from ..runtime import load

    folder = resolve(artifact, revision=revision, patterns=PATTERNS).folder
    # Asked of the manifest first: loading the wrong model would take its time and memory before saying so.
    found = read_manifest(folder).task
    if found != task:
        raise UsageError(f"{artifact} is a {found} artifact; run it with `intaglio {VERB_OF_TASK[found]} {artifact}`")
    runner = load(folder, device=device, threads=threads)
    if not isinstance(runner, kind):
        raise TypeError(f"runtime.load gave {type(runner).__name__} for {task}, expected {kind.__name__}")
    return runner
