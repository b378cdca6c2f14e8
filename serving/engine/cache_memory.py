"""The memory of the KV cache: reckoned when a model is loaded, and before each request comes in.

Slots are address space, which takes memory only when it is written to. So a server may start with more slots than it
ever fills, while other programs take the memory that it counted on. Linux would kill the process then.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial

from ...errors import UsageError
from ...machine import available_memory
from ...runtime.engine.session import Session
from ...runtime.engine.sizes import RESERVE
from ...runtime.generation.events import Waiting
from ...runtime.generation.scheduler import Scheduler
from ..errors import no_memory
from ..settings import Settings


class CacheMemory:
    """Checks that the KV cache of one model fits into memory."""

    def __init__(self, name: str, session: Session) -> None:
        self._name = name
        self._device = session.device
        self._context = session.manifest.model.context_length
        self._bytes = session.cache_bytes
        on_cpu = session.device == "cpu"
        self._free: Callable[[], int | None] = available_memory if on_cpu else partial(session.free_gpu_memory, 0)

    def check_slots(self, settings: Settings) -> None:
        """Check that every slot can be filled, and every kept prompt.

        Raises:
            UsageError: there is not enough memory.
        """
        length, count = settings.max_length or self._context, settings.slots + settings.kept_prompts
        needed, free = count * self._bytes(length), self._free()
        if free is None or needed + RESERVE <= free:
            return
        # The first length that does not fit, less one.
        fits = bisect_right(range(length), free - RESERVE, key=lambda tokens: count * self._bytes(tokens)) - 1
        remedy = f"give --max-length {fits}, or " if fits > 1 else ""
        raise UsageError(
            f"the KV cache of {self._name} needs {needed / 1e9:,.1f} GB for {settings.slots} slots and "
            f"{settings.kept_prompts} kept prompts of {length:,} tokens, and {free / 1e9:,.1f} GB of memory are free; "
            f"{remedy}fewer --slots or --kept-prompts"
        )

    def check(self, scheduler: Scheduler, requests: Sequence[Waiting], retry_after: int) -> None:
        """Check that requests can be held beside those that are open.

        On a GPU memory is taken when a buffer grows, which fails without ending the process.

        Raises:
            ApiError: 503 where there is not enough memory now.
        """
        if self._device != "cpu" or not (needed := scheduler.memory_needed(requests)):
            return
        free = self._free()
        if free is not None and needed + RESERVE > free:
            raise no_memory(self._name, retry_after)
