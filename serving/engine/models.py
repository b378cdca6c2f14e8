"""The artifacts of a server by name: loaded when they are first requested, evicted when others need their place."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from ...artifact import Precision
from ...runtime.folder import open_folder
from ...runtime.load import LoadOptions, Model
from ..errors import ApiError, shutting_down
from ..record import current
from ..settings import Settings
from ..steps import Steps
from .admission import queue_full
from .engine import Engine
from .loaded import Loaded, Place, ServedModel, open_model
from .observer import Observer
from .worker import Worker

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_held: ContextVar[set[Place]] = ContextVar("held")
"""The models that the current request has obtained."""


class Models:
    """The artifacts of a server. For the event loop's thread.

    Models are obtained within a ``holding`` block, and stay in memory until its end.

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
        self.observer = observer
        """Of the engines; set before the first is loaded."""
        self._places = {name: Place(model) for name, model in served.items()}
        self._uses = count(1)
        self._one_load = asyncio.Lock()
        self._changed = asyncio.Event()
        self._draining = False

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines of the text-generation models that are loaded, by name."""
        runners = {name: place.loaded.runner for name, place in self._places.items() if place.loaded is not None}
        return {name: runner for name, runner in runners.items() if isinstance(runner, Engine)}

    @property
    def loaded(self) -> frozenset[str]:
        """The names of the models in memory."""
        return frozenset(name for name, place in self._places.items() if place.loaded is not None)

    @property
    def healthy(self) -> bool:
        """False where the thread of an engine has ended by itself."""
        return all(engine.alive for engine in self.engines.values())

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

    @asynccontextmanager
    async def holding(self) -> AsyncGenerator[None, None]:
        """Keep the models that the block obtains in memory until its end: a block around each request."""
        places: set[Place] = set()
        token = _held.set(places)
        try:
            yield
        finally:
            _held.reset(token)
            for place in places:
                place.users -= 1
            self._notify()

    async def model(self, name: str | None) -> Model:
        """Return a model, loaded. Errors as ``engine``, whatever its task."""
        return (await self._obtain(self.find(name))).model

    async def engine(self, name: str | None) -> Engine:
        """Return the engine of a text-generation model.

        Raises:
            ApiError: 400 where the model is for another task; 404 as ``find``; 429 where too many wait for it to be
                loaded; 503 where it cannot be loaded, or the server ends.
        """
        served = self.find(name)
        if served.manifest.task != "text-generation":
            raise ApiError(f"the model {served.name!r} is for {served.manifest.task}, not for text", param="model")
        runner = (await self._obtain(served)).runner
        assert isinstance(runner, Engine)
        return runner

    async def run_task(
        self, name: str | None, function: Callable[[Model], Result], client: str | None = None
    ) -> Result:
        """Return ``function(model)``, called on the thread of a model without generation.

        Args:
            client: as ``Worker.run_steps``.

        Raises:
            ApiError: 400 where the model is for text; 429 where the queue is full, 504 where the time is over; also as
                ``engine``. What the function raises is raised.
        """
        loaded, worker = await self._worker(name)
        return await worker.run(partial(function, loaded.model), client)

    async def run_steps(
        self, name: str | None, function: Callable[[Model], Steps[Result]], client: str | None = None
    ) -> Result:
        """Return what the generator ``function(model)`` returns; other calls run between its steps. As ``run_task``."""
        loaded, worker = await self._worker(name)
        return await worker.run_steps(function(loaded.model), client)

    async def _worker(self, name: str | None) -> tuple[Loaded, Worker]:
        served = self.find(name)
        if served.manifest.task == "text-generation":
            raise ApiError(f"the model {served.name!r} is for text-generation, not for this path", param="model")
        loaded = await self._obtain(served)
        assert isinstance(loaded.runner, Worker)
        return loaded, loaded.runner

    async def preload(self) -> None:
        """Load as many models as may be in memory, in their order, so that what is wrong with one is known at once.

        Raises:
            IntaglioError: as ``load``, and where there is not enough memory.
        """
        for served in list(self.served.values())[: self._settings.max_loaded]:
            async with self.holding():
                try:
                    await self._obtain(served)
                except ApiError as error:  # the cause is what a client is not told
                    raise error.__cause__ or error from None

    async def drain(self, timeout: float | None = None) -> None:
        """Refuse new requests, let those that hold models end, for at most ``timeout`` seconds, and close."""
        self._draining = True
        self._notify()
        try:
            async with asyncio.timeout(timeout):
                await self._until(lambda: not any(place.users for place in self._places.values()))
        except TimeoutError:
            users = sum(place.users for place in self._places.values())
            log.warning("%d requests have not ended within %g seconds; they end with an error", users, timeout)
        await self.close()

    async def close(self) -> None:
        """Close the engines and the models; requests that have not ended end with an error."""
        self._draining = True
        self._notify()
        for place in self._places.values():
            if place.loading is not None:
                await asyncio.wait({place.loading})
            await self._evict(place)

    async def _obtain(self, served: ServedModel) -> Loaded:
        """Return a model for the current request, loaded; those that wait for it share one load."""
        current().model = served.name
        place, held = self._places[served.name], _held.get()
        if place not in held:
            await self._hold(place, held)
        place.used = next(self._uses)
        if place.loading is None:
            place.loading = asyncio.create_task(self._load(place))
            place.loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # all may have left
        return await asyncio.shield(place.loading)

    async def _hold(self, place: Place, held: set[Place]) -> None:
        """Let the current request hold a model, once it does not leave."""
        most = self._settings.slots + self._settings.max_queue
        if (place.loaded is None or place.leaving) and place.users + place.later >= most:
            raise queue_full(place.served.name, place.users + place.later, most)
        place.later += 1
        try:
            await self._until(lambda: not place.leaving)
        finally:
            place.later -= 1
        if self._draining:
            raise shutting_down()
        place.users += 1
        held.add(place)

    async def _load(self, place: Place) -> Loaded:
        try:
            async with self._one_load:
                await self._make_room()
                loop = asyncio.get_running_loop()
                return await asyncio.to_thread(
                    open_model, place.served, self._load_options, self._settings, self.observer, loop
                )
        except BaseException:
            place.loading = None  # the next request tries again
            raise

    async def _make_room(self) -> None:
        """Evict models until another may be loaded: the least recently used of those that nobody uses.

        Where all are used, the least recently used one takes no more requests until it has gone or another has.
        """
        most = self._settings.max_loaded
        while most is not None and len(loaded := self._loaded()) >= most:
            oldest = loaded[0]
            oldest.leaving = all(place.users for place in loaded)
            await self._until(lambda: self._draining or not all(place.users for place in self._loaded()))
            if not self._draining:
                await self._evict(next(place for place in self._loaded() if not place.users))
            oldest.leaving = False
            self._notify()
            if self._draining:
                raise shutting_down()

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so; ``_notify`` says that it may be."""
        while not reached():
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _loaded(self) -> list[Place]:
        """Return the places of the models in memory, least recently used first."""
        return sorted((place for place in self._places.values() if place.loaded), key=lambda place: place.used)

    async def _evict(self, place: Place) -> None:
        loaded, place.loading = place.loaded, None
        if loaded is not None:
            await asyncio.to_thread(loaded.close)


def named_models(
    artifacts: Mapping[str, str | Path], revision: str | None = None, precision: Precision | None = None
) -> dict[str, ServedModel]:
    """Return artifacts by their names, each given as a folder or a hub id; their manifests are read.

    Args:
        revision, precision: as for ``load``, of every artifact.

    Raises:
        ArtifactError, HubError: as ``open_folder``.
    """
    found = {}
    for name, source in artifacts.items():
        folder, manifest = open_folder(source, revision, precision)
        found[name] = ServedModel(name, folder, manifest)
    return found
