"""Text generation: prompts in, text out; whole, as a stream, in batches, as a conversation."""

from collections.abc import Generator, Sequence
from typing import Protocol, Unpack, overload
from weakref import WeakSet

from ...artifact import Manifest
from ...errors import UsageError
from ..chat.chat import ChatOptions, ChatReply, ChatStream, finish, stream_chat
from ..chat.messages import Message
from ..chat.template import ChatFormat
from ..decoding.decoder import Decoder, open_decoder, rows_together
from ..engine.session import Session
from ..sequence.defaults import GenerationDefaults
from ..sequence.generation import Generation, generation
from ..sequence.options import Options
from ..sequence.request import Plan, Planner, positions
from ..sequence.sequence import Row
from ..sequence.stream import TextStream
from ..text.prompts import Prompt, Prompts, as_list
from ..text.tokenizer import Tokenizer
from .batch import Batch
from .conversation import Conversation
from .draft_model import DraftModel, check_draft
from .scheduler import Scheduler, run
from .score import Score, score
from .speculation import PromptLookup, Speculation, decode


class Closable(Protocol):
    """What ends with the model that it came from."""

    def close(self) -> None: ...


class TextGenerator:
    """A loaded text-generation artifact. A call leaves nothing behind, so that several threads may call.

    ``close``, or the end of a ``with`` block, lets the weights go, and ends its conversations and schedulers; what
    another thread is generating just then comes to its end.
    """

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer | None,
        defaults: GenerationDefaults,
        chat_format: ChatFormat | None = None,
    ) -> None:
        self._loaded: Session | None = session
        self._planner = Planner(session.manifest.model, tokenizer, defaults)
        self._children: WeakSet[Closable] = WeakSet()
        self.manifest: Manifest = session.manifest
        self.tokenizer = tokenizer
        self.defaults = defaults
        self.chat_format = chat_format or ChatFormat("the artifact")

    def __repr__(self) -> str:
        closed = f"{self.manifest.family} {self.manifest.precision}, closed"
        return f"<TextGenerator {closed if self._loaded is None else self._loaded.description}>"

    @overload
    def generate(self, prompt: Prompt, *, batch_size: int = 8, **options: Unpack[Options]) -> Generation: ...
    @overload
    def generate(self, prompt: Prompts, *, batch_size: int = 8, **options: Unpack[Options]) -> list[Generation]: ...
    def generate(
        self, prompt: Prompt | Prompts, *, batch_size: int = 8, **options: Unpack[Options]
    ) -> Generation | list[Generation]:
        """Continue a prompt, or each of several.

        What is None comes from the checkpoint's generation_config.json, and where that is silent: greedy, no filter,
        256 new tokens. (transformers would then sample with top_k 50 and stop after 20.)

        Args:
            prompt: text or token ids, or a list of either. Results keep the order.
            batch_size: how many prompts are decoded together: when one ends, the next takes its place. The results do
                not depend on it.

        Options:
            max_new_tokens: generation ends with "length" after so many, or where the context is full.
            temperature: 0 is greedy; above 0 samples, whatever generation_config.json says about ``do_sample``.
            top_k, top_p, min_p: filters of sampling; they do not change a greedy choice.
            repetition_penalty: over prompt and generated tokens; it does change a greedy choice.
            seed: the same seed gives the same tokens. Each prompt of a list has its own random stream, made of the
                seed and its place in the list, so that its sample does not depend on its neighbours.
            stop: text that ends the generation and is left out of the result.
            eos_token_id: tokens that end the generation; an empty list for none.
            json_schema, regex, grammar: at most one of them, which the whole text then fits: a JSON schema (an object,
                or as JSON text), a regular expression, or a grammar in Lark's notation.
            logprobs: log-probabilities of the generated tokens, and of so many likeliest ones in place of each.
            speculate: guess tokens from the text so far and check several in one pass; the results are the same. None
                does so where a prompt is decoded alone, with as many guesses as come true; False never; True refuses
                where it cannot be done, with target "standard" or frequencies that depend on the length.
            draft: a smaller model of the same vocabulary, which guesses instead.

        Raises:
            PromptError: an empty prompt, one that fills the context, ids out of range, no memory for the KV cache.
            UsageError: a setting out of its range; a schema, expression or grammar that cannot be used; a draft of
                another vocabulary; the model is closed.
            DependencyError: one of these needs a package that is not installed.
        """
        session, plan = self.session, self._planner.plan(**options)
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        prompts, listed = as_list(prompt)
        rows = [
            self._planner.row(one, plan, f"prompt {index}" if listed else "the prompt", index)
            for index, one in enumerate(prompts)
        ]
        together = min(rows_together(session, batch_size), len(rows))
        results: dict[int, Generation] = {}
        if together == 1:
            for index, row in enumerate(rows):
                results[index] = generation(row, "".join(self._alone(row, plan)))
        else:
            if plan.speculate or plan.draft is not None:
                raise UsageError("a batch does not speculate: leave out speculate and draft, or give batch_size=1")
            run(Batch(self._open(rows, together)), rows, lambda i, text: results.update({i: generation(rows[i], text)}))
        return [results[index] for index in range(len(rows))] if listed else results[0]

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> TextStream[Generation]:
        """The text of ``generate`` piece by piece: whole characters, and never a part of a stop string.

        The iterator's ``generation`` is what ``generate`` would have returned, once the pieces have ended.

        Raises:
            PromptError, UsageError: as ``generate``, at the call and not at the first piece.
        """
        plan = self._planner.plan(**options)
        prompts, listed = as_list(prompt)
        if listed:
            raise UsageError("stream takes one prompt; use generate for several")
        row = self._planner.row(prompts[0], plan, "the prompt")
        said: list[str] = []
        steps = self._alone(row, plan)

        def pieces() -> Generator[str, None, None]:
            for piece in steps:
                if piece:
                    said.append(piece)
                    yield piece

        return TextStream(pieces(), lambda: generation(row, "".join(said)))

    def chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> ChatReply:
        """The model's turn in a conversation, with the checkpoint's chat template.

        Args:
            messages: the history, each with ``role`` and ``content``; ``ChatReply.message`` goes on with it.

        Options:
            tools: functions, or JSON schemas, that the model may call; ``toolloop.run_tools`` carries the calls out.
            enable_thinking: for templates that know it; None is the template's own default.
            documents, template_variables: what else a template may ask for.
            continue_final_message: go on with the last message instead of answering it.
            template: the name of one of several templates.
            conversation: of ``conversation()``; a turn then reads only what is new.
            all others: as ``generate``.

        Raises:
            ArtifactError: no chat template, or one that is refused.
            PromptError: messages that the template fails on; a conversation that fills the context.
            UsageError: a tool that cannot be described, a setting out of its range.
        """
        return finish(self.stream_chat(messages, **options))

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> ChatStream:
        """``chat`` as it comes: events, whose ``reply`` is what ``chat`` would have returned."""
        return stream_chat(self, self.chat_format, self.tokenizer, messages, options)

    def conversation(self) -> Conversation:
        """A cache that is kept from call to call, each of which is given the whole history."""
        conversation = Conversation(self.session, self._planner, self._speculation)
        self._children.add(conversation)
        return conversation

    def scheduler(self, *, slots: int = 8, max_length: int | None = None) -> Scheduler:
        """Continuous batching: prompts join and leave while others are generated.

        Args:
            slots: how many are generated together.
            max_length: the most tokens of one, prompt and answer together; None for the model's context.

        Raises:
            UsageError: fewer than one slot, or a max_length beyond the context.
            PromptError: there is not enough memory for the KV cache.
        """
        context = self.manifest.model.context_length
        if slots < 1:
            raise UsageError(f"slots must be at least 1, not {slots}")
        if max_length is not None and not 2 <= max_length <= context:
            raise UsageError(f"max_length must be between 2 and the model's context of {context:,}, not {max_length}")
        if rows_together(self.session, slots) < slots:
            raise UsageError("a bfloat16 artifact of target 'standard' generates one prompt at a time; give slots=1")
        scheduler = Scheduler(self.session, self._planner, slots, max_length or context)
        self._children.add(scheduler)
        return scheduler

    @overload
    def score(
        self, text: Prompt, *, context: Prompt | None = None, window: int | None = None, stride: int | None = None
    ) -> Score: ...
    @overload
    def score(
        self,
        text: Prompts,
        *,
        context: Prompt | Prompts | None = None,
        window: int | None = None,
        stride: int | None = None,
    ) -> list[Score]: ...
    def score(
        self,
        text: Prompt | Prompts,
        *,
        context: Prompt | Prompts | None = None,
        window: int | None = None,
        stride: int | None = None,
    ) -> Score | list[Score]:
        """The log-probability of each token of a text, or of each of several texts, given the tokens before it.

        Args:
            text: text or token ids, or a list of either. Results keep the order.
            context: what stands before the text and is not scored itself; one for all, or a list with one for each.
                Context and text are tokenized together, and a token that the border runs through is scored. Without a
                context the first token is not scored.
            window: how many tokens the model reads at most to score one; None for its context length.
            stride: a text longer than the window is scored in windows, each of which scores so many tokens further;
                a token then sees at least ``window - stride + 1`` tokens before it, where there are so many. None
                refuses such a text.

        Raises:
            PromptError: an empty text, one token without a context, a text too long, ids out of range, no memory.
            UsageError: window or stride out of range, or another number of contexts than of texts.
        """
        return score(self.session, self.tokenizer, text, context, window, stride)

    def close(self) -> None:
        """Let the weights go. Calls that come later are refused with a UsageError; to close twice is no harm."""
        self._loaded = None
        for child in list(self._children):
            child.close()

    def __enter__(self) -> "TextGenerator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def session(self) -> Session:
        """The loaded graph. Raises UsageError where the model is closed."""
        if self._loaded is None:
            raise UsageError("the model is closed; load it again")
        return self._loaded

    def _open(self, rows: list[Row], together: int) -> Decoder:
        longest = max(row.prompt.size for row in rows)
        return open_decoder(self.session, together, longest, max(map(positions, rows)))

    def _alone(self, row: Row, plan: Plan) -> Generator[str, None, None]:
        """The pieces of one row's text; memory is asked for now, and not at the first piece."""
        decoder = self._open([row], 1)
        speculation = self._speculation(plan, row.prompt.size)

        def pieces() -> Generator[str, None, None]:
            yield from decode(decoder, row, decoder.prefill(0, row.prompt), speculation)

        return pieces()

    def _speculation(self, plan: Plan, prompt: int) -> Speculation | None:
        """How a single row of so many prompt tokens speculates, if at all."""
        session = self.session
        if plan.speculate is False:
            return None
        if session.manifest.target == "standard" or session.manifest.model.length_dependent_rope:
            if plan.speculate or plan.draft is not None:
                raise UsageError(
                    f"{session.folder} cannot speculate: that takes target 'ort', and rotary frequencies that do not "
                    "depend on the length; leave out speculate and draft"
                )
            return None
        if plan.draft is None:
            return Speculation(PromptLookup())
        check_draft(session, self.tokenizer, plan.draft.session, plan.draft.tokenizer)
        return Speculation(DraftModel(plan.draft.session, prompt))
