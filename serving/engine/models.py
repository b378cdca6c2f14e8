"""The artifacts of a server by name, loaded when they are first requested."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ...artifact import Manifest
from ...runtime.folder import open_folder
from ...runtime.generation.generator import TextGenerator
from ...runtime.load import LoadOptions, Model, load
from ..errors import ApiError
from ..settings import Settings
from .engine import Engine
from .observer import Observer


@dataclass(frozen=True)
class ServedModel:
    """An artifact that a server offers: its name, its folder and its manifest."""

    name: str
    folder: Path
    manifest: Manifest


class Models:
    """The artifacts of a server.

    Args:
        served: name → artifact.
    """

    def __init__(
        self,
        served: Mapping[str, ServedModel],
        settings: Settings,
        load_options: LoadOptions | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.served = served
        self._settings = settings
        self._load_options: LoadOptions = load_options or {}
        self._observer = observer
        self._loaded: dict[str, Model] = {}
        self._engines: dict[str, Engine] = {}
        self._workers: dict[str, ThreadPoolExecutor] = {}
        self._lock = asyncio.Lock()

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines of the text-generation models that are loaded, by name."""
        return self._engines

    def find(self, name: str | None) -> ServedModel:
        """Return the artifact of a name; without a name, the only one.

        Raises:
            ApiError: 404 where there is none of the name; 400 where there are several and no name.
        """
        if name is None and len(self.served) == 1:
            return next(iter(self.served.values()))
        if name is None:
            raise ApiError(f"there are several models; give one of {', '.join(self.served)}", param="model")
        if name not in self.served:
            raise ApiError(
                f"there is no model {name!r}; the models are: {', '.join(self.served)}",
                status=404,
                param="model",
                code="model_not_found",
            )
        return self.served[name]

    async def model(self, name: str | None) -> Model:
        """Return a model, loaded."""
        served = self.find(name)
        async with self._lock:
            if served.name not in self._loaded:
                self._loaded[served.name] = await asyncio.to_thread(self._load, served.folder)
            return self._loaded[served.name]

    def _load(self, folder: Path) -> Model:
        return load(folder, **self._load_options)

    async def engine(self, name: str | None) -> Engine:
        """Return the engine of a text-generation model.

        Raises:
            ApiError: 400 where the model is for another task.
        """
        served = self.find(name)
        if served.manifest.task != "text-generation":
            raise ApiError(f"the model {served.name!r} is for {served.manifest.task}, not for text", param="model")
        model = await self.model(served.name)
        assert isinstance(model, TextGenerator)
        if served.name not in self._engines:
            self._engines[served.name] = Engine(served.name, model, self._settings, self._observer)
        return self._engines[served.name]

    async def close(self) -> None:
        """Close the engines and the models."""
        for engine in self._engines.values():
            await asyncio.to_thread(engine.close)
        for model in self._loaded.values():
            model.close()


def named_models(artifacts: Mapping[str, str | Path]) -> dict[str, ServedModel]:
    """Return artifacts by their names, each given as a folder or a hub id; their manifests are read.

    Raises:
        ArtifactError, HubError: as ``open_folder``.
    """
    found = {}
    for name, source in artifacts.items():
        folder, manifest = open_folder(source, None, None)
        found[name] = ServedModel(name, folder, manifest)
    return found
