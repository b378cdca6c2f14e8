"""From the ARTIFACT argument to the runtime object of the task that a verb is for."""

from typing import TypeVar

from ..artifact import Task
from ..errors import UsageError
from .options import Device, KVCache

VERB_OF_TASK: dict[Task, str] = {
    "text-generation": "generate",
    "text-classification": "classify",
    "token-classification": "tag",
    "question-answering": "answer",
    "feature-extraction": "embed",
}

Runner = TypeVar("Runner")


def load_as(
    kind: type[Runner],
    task: Task,
    artifact: str,
    *,
    device: Device,
    threads: int | None,
    revision: str | None,
    kv_cache: KVCache = "auto",
) -> Runner:
    """Load an artifact, a folder or a hub id, as ``kind``, the runtime's class for ``task``.

    Raises:
        UsageError: the artifact is one of another task; the message says which verb runs it.
        UnsupportedError, ArtifactError, HubError, DependencyError: as ``intaglio.runtime.load``.
    """
    from ..runtime import load
    from ..runtime.folder import open_folder

    folder, manifest = open_folder(artifact, revision)
    found = manifest.task
    # Asked before the weights are read: loading the wrong model would take its time and memory first.
    if found != task:
        raise UsageError(f"{artifact} is a {found} artifact; run it with `intaglio {VERB_OF_TASK[found]} {artifact}`")
    runner = load(folder, device=device, threads=threads, kv_cache=kv_cache)
    if not isinstance(runner, kind):
        raise TypeError(f"runtime.load gave {type(runner).__name__} for {task}, expected {kind.__name__}")
    return runner
