"""A conversation: one cache that lives from turn to turn, so that a turn prefills only what is new."""

from collections.abc import Callable, Generator
from typing import Unpack

import numpy as np

from ..decoding.decoder import Decoder, open_decoder
from ..engine.session import Session
from ..sequence.generation import Generation, generation
from ..sequence.options import Options
from ..sequence.request import Plan, Planner
from ..sequence.sequence import Row
from ..sequence.stream import TextStream
from ..text.prompts import Prompt
from .exclusive import Guard
from .speculation import Speculation, decode

Speculator = Callable[[Plan, int], Speculation | None]


class Conversation:
    """Made by ``TextGenerator.conversation``. Each call is given the whole history, as text or token ids.

    What the cache holds of it already, the longest common beginning, is not read again, whatever was changed behind it;
    the results are those of ``TextGenerator.generate``. For one thread at a time. In a model with sliding layers a
    history that is changed far back is read anew, because their caches have dropped what stood there; where the rotary
    frequencies depend on the length every history is.
    """

    def __init__(self, session: Session, planner: Planner, speculator: Speculator) -> None:
        self._session: Session | None = session
        self._planner = planner
        self._speculator = speculator
        self._decoder: Decoder | None = None
        self._history: list[int] = []  # the tokens of the last call, of which the decoder has read the first ones
        self._guard = Guard("the conversation", "open another one with TextGenerator.conversation()")
        self.reused = 0
        """How many tokens of the last call's prompt were in the cache already."""

    def __repr__(self) -> str:
        held = 0 if self._decoder is None else self._decoder.length(0)
        return f"<Conversation {'closed' if self._guard.closed else f'with {held:,} tokens in its KV cache'}>"

    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> Generation:
        """As ``TextGenerator.generate`` for one prompt.

        Raises:
            UsageError: also where the conversation is closed, or in use.
        """
        stream = self.stream(prompt, **options)
        for _ in stream:
            pass
        assert stream.generation is not None
        return stream.generation

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> TextStream[Generation]:
        """As ``TextGenerator.stream``. The conversation is in use from the first piece until the stream ends.

        A stream that is closed early leaves a sound conversation, whose cache holds what was generated.
        """
        self._guard.check()
        plan = self._planner.plan(**options)
        row = self._planner.row(prompt, plan, "the prompt")
        speculation = self._speculator(plan, row.prompt.size)
        said: list[str] = []
        return TextStream(self._pieces(row, speculation, said), lambda: generation(row, "".join(said)))

    def close(self) -> None:
        """Let the cache go. A stream that is running ends as it would have."""
        self._guard.closed = True
        self._decoder = self._session = None

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pieces(self, row: Row, speculation: Speculation | None, said: list[str]) -> Generator[str, None, None]:
        with self._guard.held():
            session = self._session
            assert session is not None  # or it would be closed
            prompt = row.prompt.tolist()
            if self._decoder is None:
                self._decoder = open_decoder(session, 1, row.prompt.size, session.manifest.model.context_length)
            decoder = self._decoder
            once = session.manifest.model.length_dependent_rope
            known = 0 if once else self._common(prompt, decoder.length(0))
            self._history = []  # until it is known what the decoder has read
            try:
                self.reused = decoder.rollback(0, known)
                for piece in decode(decoder, row, decoder.extend(0, row.prompt[self.reused :])[0], speculation):
                    if piece:
                        said.append(piece)
                        yield piece
            except GeneratorExit:
                self._history = prompt + row.token_ids
                raise
            except BaseException:
                decoder.rollback(0, 0)
                raise
            self._history = prompt + row.token_ids

    def _common(self, prompt: list[int], held: int) -> int:
        """How many tokens the prompt and the cache have in common; the prompt's last one is read in any case."""
        most = min(held, len(self._history), len(prompt) - 1)
        differs = np.flatnonzero(np.array(self._history[:most]) != np.array(prompt[:most]))
        return int(differs[0]) if differs.size else most
