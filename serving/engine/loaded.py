"""An artifact that a server offers, and what is in memory of it."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from ...artifact import Manifest
from ...errors import InputError, IntaglioError
from ...runtime.generation.generator import TextGenerator
from ...runtime.load import LoadOptions, Model, load
from ..errors import ApiError
from ..settings import Settings
from .engine import Engine
from .observer import Observer
from .worker import Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """An artifact that a server offers: its name, its folder and its manifest."""

    name: str
    folder: Path
    manifest: Manifest


@dataclass
class Loaded:
    """A model in memory, with the thread that runs it."""

    model: Model
    runner: Engine | Worker

    def close(self) -> None:
        """End the thread and release the weights."""
        self.runner.close()
        self.model.close()


@dataclass(eq=False)
class Place:
    """What is in memory of an artifact, and how many use it.

    Attributes:
        users: how many requests hold it, or wait for its load.
        leaving: it is evicted when its users have ended; requests that come meanwhile wait until it has gone.
        later: how many of these there are.
        loading: the task that loads it, kept when it is done; None where it is not in memory.
        used: the number of its last use, counted over all models.
    """

    served: ServedModel
    users: int = 0
    leaving: bool = False
    later: int = 0
    loading: "asyncio.Task[Loaded] | None" = None
    used: int = 0

    @property
    def loaded(self) -> Loaded | None:
        """The model, once it is there."""
        done = self.loading is not None and self.loading.done() and not self.loading.cancelled()
        return None if not done or self.loading is None or self.loading.exception() else self.loading.result()


def open_model(
    served: ServedModel,
    options: LoadOptions,
    settings: Settings,
    observer: Observer | None,
    loop: asyncio.AbstractEventLoop,
) -> Loaded:
    """Load an artifact and start its thread.

    Raises:
        ApiError: 503 where it cannot be loaded; the log has the reason.
    """
    try:
        model = load(served.folder, **_for_slots(served, options, settings))
        if model.session.kv_cache_reason is not None and isinstance(model, TextGenerator):
            log.info("%s: KV cache %s, for %s", served.name, model.session.cache_dtype, model.session.kv_cache_reason)
        try:
            if isinstance(model, TextGenerator):
                _prepare_constraints(served.name, model)
                return Loaded(model, Engine(served.name, model, settings, observer, loop))
            return Loaded(model, Worker(served.name, model, settings))
        except BaseException:
            model.close()
            raise
    except Exception as error:
        # The message names folders of this machine, which are none of a client's business.
        log.error("cannot load %s: %s", served.name, error, exc_info=not isinstance(error, IntaglioError))
        raise ApiError(
            f"the model {served.name!r} cannot be loaded; the server's log has the reason",
            status=503,
            kind="server_error",
            code="model_not_loaded",
            retry_after=10,
        ) from error


def _for_slots(served: ServedModel, options: LoadOptions, settings: Settings) -> LoadOptions:
    """Return the options with the texts that the KV cache must hold, where it is to be chosen by them."""
    if options.get("kv_cache") != "auto":
        return options
    longest = settings.longest(served.manifest.model.context_length)
    return {**options, "max_length": longest, "slots": settings.slots + settings.kept_prompts}


def _prepare_constraints(name: str, model: TextGenerator) -> None:
    """Prepare structured output now, since it stops all other threads; without it, requests of it are refused."""
    try:
        model.prepare_constraints()
    except InputError as error:
        log.warning("%s has no structured output: %s", name, error)
