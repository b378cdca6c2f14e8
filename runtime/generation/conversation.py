"""A conversation: one KV cache that is kept from turn to turn, so that a turn prefills only what is new."""

from collections.abc import Generator
from typing import Unpack

import numpy as np

from ...known_options import refuses_unknown_options
from ..decoding.decoder import Decoder, open_decoder
from ..engine.session import Session
from ..sequence.options import Options
from ..sequence.request import Beams, RequestBuilder
from ..sequence.sequence import ActiveSequence, Generation
from ..sequence.stream import TextStream
from ..text.prompts import Prompt
from .beam_search import BeamSearch, stream_beams
from .exclusive import ExclusiveUse
from .speculation import Speculation, SpeculationFor, decode


class Conversation:
    """A KV cache for one history that grows; made by ``TextGenerator.conversation``. For one thread at a time.

    Each call takes the whole history, as text or token ids. Its longest common prefix with the cached tokens is not
    read again; the results are those of ``TextGenerator.generate``. In a model with sliding layers a history that is
    changed far back is read from the start, because their caches no longer have those positions. Where the rotary
    frequencies depend on the length, every history is read from the start.
    """

    def __init__(self, session: Session, requests: RequestBuilder, speculation_for: SpeculationFor) -> None:
        self._session: Session | None = session
        self._requests = requests
        self._speculation_for = speculation_for
        self._decoder: Decoder | None = None
        self._history: list[int] = []  # the tokens of the last call; the decoder has read the first ones
        self._use = ExclusiveUse("the conversation", "open another one with TextGenerator.conversation()")
        self.reused = 0
        """How many tokens of the last call's prompt were already in the cache."""

    def __repr__(self) -> str:
        held = 0 if self._decoder is None else self._decoder.length(0)
        return f"<Conversation {'closed' if self._use.closed else f'with {held:,} tokens in its KV cache'}>"

    @refuses_unknown_options
    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> Generation:
        """Continue one prompt as ``TextGenerator.generate`` does.

        Raises:
            PromptError, UsageError: as ``TextGenerator.generate``; or the conversation is closed, or in use.
        """
        stream = self.stream(prompt, **options)
        for _ in stream:
            pass
        assert stream.generation is not None
        return stream.generation

    @refuses_unknown_options
    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> TextStream[Generation]:
        """Continue one prompt as ``TextGenerator.stream`` does.

        The conversation is in use from the first chunk until the stream ends. A stream that is closed early leaves it
        usable, with the tokens generated so far in its cache.
        """
        self._use.check_open()
        request = self._requests.request(**options)
        sequence = self._requests.sequence(prompt, request, "the prompt")
        if request.beams is not None:
            return self._search(sequence, request.beams)
        speculation = self._speculation_for(request, sequence.prompt.size)
        return TextStream(self._generate(sequence, speculation), sequence.result)

    def close(self) -> None:
        """Release the cache. A stream that is running continues to its end."""
        self._use.closed = True
        self._decoder = self._session = None

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _search(self, sequence: ActiveSequence, beams: Beams) -> TextStream[Generation]:
        """Search with beams, which have caches of their own; the conversation's stays as it is."""
        assert self._session is not None  # it is None only where the conversation is closed
        search = BeamSearch(self._session, sequence, beams)
        self.reused = 0
        return stream_beams(search, sequence)

    def _generate(self, sequence: ActiveSequence, speculation: Speculation | None) -> Generator[str, None, None]:
        """Generate the text in chunks, none of them empty."""
        with self._use.acquired():
            session = self._session
            assert session is not None  # it is None only where the conversation is closed
            prompt = sequence.prompt.tolist()
            if sequence.expired():
                return
            if self._decoder is None:
                self._decoder = open_decoder(session, 1, sequence.prompt.size, session.manifest.model.context_length)
            decoder = self._decoder
            known = (
                0 if session.manifest.model.length_dependent_rope else self._common_prefix(prompt, decoder.length(0))
            )
            self._history = []  # unknown until the decoder has read the prompt
            try:
                self.reused = decoder.rollback(0, known)
                logits = decoder.extend(0, sequence.prompt[self.reused :])[0]
                for chunk in decode(decoder, sequence, logits, speculation):
                    if chunk:
                        yield chunk
            except GeneratorExit:
                self._history = prompt + sequence.token_ids
                raise
            except BaseException:
                decoder.rollback(0, 0)
                raise
            self._history = prompt + sequence.token_ids

    def _common_prefix(self, prompt: list[int], held: int) -> int:
        """Return the length of the common prefix of prompt and cache, at most all but the prompt's last token."""
        most = min(held, len(self._history), len(prompt) - 1)
        differs = np.flatnonzero(np.array(self._history[:most]) != np.array(prompt[:most]))
        return int(differs[0]) if differs.size else most
