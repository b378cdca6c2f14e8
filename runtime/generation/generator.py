"""Text generation: prompts in, text out; whole, as a stream, in batches, as a conversation."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Literal, Protocol, Unpack, overload
from weakref import WeakSet

from ...artifact import Manifest
from ...errors import PromptError, UsageError
from ...files.chat.messages import Message
from ...files.chat.template import ChatFormat
from ...files.generation_settings import CheckpointSettings
from ...known_options import refuses_unknown_options
from ..chat.chat import ChatOptions, ChatReply, ChatStream, finish, stream_chat
from ..decoding.decoder import Decoder, open_decoder
from ..engine.rounding import pass_dependence
from ..engine.session import Session
from ..sequence.options import Options
from ..sequence.request import Request, RequestBuilder
from ..sequence.sequence import ActiveSequence, Generation
from ..sequence.stream import TextStream
from ..text.prompts import Prompt, Prompts, as_list
from ..text.tokenizer import Tokenizer
from .batch import Batch, run
from .beam_search import BeamSearch, stream_beams
from .conversation import Conversation
from .draft_model import DraftModel, check_draft, draft_cost
from .guesses.pass_cost import pass_cost
from .guesses.suffix_lookup import EarlierTexts, SuffixLookup
from .limits import check_limits
from .scheduler import Scheduler
from .score import Score, score
from .several import check_count, make_sequences, search_all
from .speculation import Rounds, Speculation, decode


class Closable(Protocol):
    """An object that is closed together with its model."""

    def close(self) -> None: ...


class TextGenerator:
    """A loaded text-generation artifact. Calls share no state, so several threads may call at once.

    ``close``, or the end of a ``with`` block, releases the weights and closes its conversations and schedulers; calls
    that are running in other threads finish.
    """

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer | None,
        defaults: CheckpointSettings,
        chat_format: ChatFormat | None = None,
    ) -> None:
        self._loaded: Session | None = session
        self._requests = RequestBuilder(session.manifest.model, tokenizer, defaults)
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
    def generate(
        self, prompt: Prompt, *, batch_size: int = 8, num_return_sequences: int, **options: Unpack[Options]
    ) -> list[Generation]: ...
    @overload
    def generate(
        self,
        prompt: Prompts,
        *,
        batch_size: int = 8,
        num_return_sequences: int | None = None,
        errors: Literal["raise"] = "raise",
        **options: Unpack[Options],
    ) -> list[Generation]: ...
    @overload
    def generate(
        self,
        prompt: Prompts,
        *,
        batch_size: int = 8,
        num_return_sequences: int | None = None,
        errors: Literal["return"],
        **options: Unpack[Options],
    ) -> list[Generation | PromptError]: ...
    @refuses_unknown_options
    def generate(
        self,
        prompt: Prompt | Prompts,
        *,
        batch_size: int = 8,
        num_return_sequences: int | None = None,
        errors: Literal["raise", "return"] = "raise",
        **options: Unpack[Options],
    ) -> Generation | list[Generation] | list[Generation | PromptError]:
        """Continue a prompt, or each of several.

        Options that are None are taken from the checkpoint's generation_config.json, and where it has none: greedy, no
        filters, 256 new tokens. (transformers would sample with top_k 50 and stop after 20.) Options with a name of
        transformers' mean what they mean there.

        Args:
            prompt: text or token ids, or a list or iterator of either. Results keep the order.
            batch_size: how many prompts are decoded together; when one ends, the next takes its slot. The results do
                not depend on it.
            num_return_sequences: how many continuations of each prompt to return, in one list, those of a prompt next
                to each other: samples, or the best texts of a beam search.
            errors: all prompts are checked before any is decoded. "raise" raises for the first that cannot be used;
                "return" puts its PromptError into the list, in the place of its result, and decodes the others.

        Options:
            max_new_tokens: the most tokens to generate; generation also ends, with "length", where the context is full.
            min_new_tokens: no end token comes before so many tokens. ``min_length`` counts the prompt.
            max_time: seconds from the call after which generation ends, with "time"; a prompt that is not begun by
                then has no tokens.
            temperature: 0 is greedy; above 0 samples, whatever ``do_sample`` in generation_config.json.
            top_k, top_p, min_p, top_h, typical_p, epsilon_cutoff, eta_cutoff: filters of sampling; they do not change
                a greedy choice.
            repetition_penalty: penalty on prompt and generated tokens; it changes a greedy choice as well.
            presence_penalty, frequency_penalty: OpenAI's: what to subtract from the logits of tokens that were
                generated, once, and for each time.
            no_repeat_ngram_size: no n-gram of this size occurs twice, prompt included.
            bad_words_ids: sequences of token ids that do not occur.
            sequence_bias, logit_bias: what to add to the logits of sequences of token ids (to the last one's, where
                the others come before it), and of single ones.
            suppress_tokens, begin_suppress_tokens: tokens that do not occur, or do not come first.
            forced_bos_token_id, forced_eos_token_id: the token after a prompt of one token, and the last token where
                max_new_tokens is reached.
            exponential_decay_length_penalty: (start, factor): end tokens become more likely after ``start`` tokens.
            logits_processor: a function of the token ids so far [T] and the logits [V] that returns the logits to
                choose from, or a list of functions. It gets copies and may change them.
            num_beams: follow so many texts and return the most probable one; with temperature 0.
            length_penalty, early_stopping: the exponent of the length that a text's score is divided by, and whether
                to stop once there are num_beams texts (True), no better one is likely (False) or possible ("never").
            seed: the same seed gives the same tokens. Each prompt of a list has a random stream of its own, seeded by
                the seed and its index, so its sample does not depend on the other prompts.
            stop: text that ends the generation and is left out of the result.
            eos_token_id: tokens that end the generation; an empty list for none.
            json_schema, regex, grammar: at most one of them, which the whole text must match: a JSON schema (an object,
                or JSON text), a regular expression, or a grammar in Lark's notation.
            constrain_after: text after which that begins to hold; before its first occurrence there may be any text.
            logprobs: compute log-probabilities of the generated tokens, and of so many most likely ones for each.
            speculate: guess tokens from the text so far and check several in one pass, and read tokens that a grammar
                forces together. None does so where the results are the same (``speculation_note`` is None), with
                guesses for a prompt that is decoded alone; False never does; True always, and refuses where it is not
                possible: with target "standard", or rotary frequencies that depend on the length.
            draft: a smaller model of the same vocabulary, such as another ``TextGenerator``, which guesses instead.

        Raises:
            PromptError: an empty prompt, one that fills the context, ids out of range, no memory for the KV cache.
            UsageError: a setting out of its range, or settings that exclude each other or every token; a schema,
                expression or grammar that cannot be used; a draft of another vocabulary; the model is closed.
            ArtifactError: a value in the checkpoint's generation_config.json cannot be used.
            DependencyError: structured output needs a package that is not installed.
        """
        session, request = self.session, self._requests.request(**options)
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        count = 1 if num_return_sequences is None else num_return_sequences
        check_count(count, request)
        prompts, listed = as_list(prompt)
        if errors not in ("raise", "return") or (errors == "return" and not listed):
            raise UsageError(f"errors={errors!r} is for a list of prompts, and is 'raise' or 'return'; leave it out")
        made = make_sequences(self._requests, request, prompts, listed, count, keep_errors=errors == "return")
        sequences = [one for one in made if isinstance(one, ActiveSequence)]
        size = min(batch_size, len(sequences))
        if request.beams is not None:
            found = search_all(session, made, request.beams, count)
            return found if listed or num_return_sequences is not None else found[0]  # type: ignore[return-value]
        if size <= 1:
            for sequence in sequences:
                for _ in self._decode_alone(sequence, request):
                    pass
        else:
            if request.speculate or request.draft is not None:
                raise UsageError("a batch does not speculate: leave out speculate and draft, or give batch_size=1")
            batch = Batch(self._open(sequences, size))
            run(batch, [(one, Rounds(one, self._speculation(request, one.prompt.size))) for one in sequences])
        results = [one.result() if isinstance(one, ActiveSequence) else one for one in made]
        return results if listed or num_return_sequences is not None else results[0]  # type: ignore[return-value]

    @refuses_unknown_options
    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> TextStream[Generation]:
        """Continue one prompt in chunks of text: whole characters, and never a part of a stop string.

        After the last chunk the iterator's ``generation`` is what ``generate`` would have returned. A beam search has
        one chunk, at its end.

        Raises:
            PromptError, UsageError: as ``generate``, at the call and not at the first chunk.
        """
        request = self._requests.request(**options)
        prompts, listed = as_list(prompt)
        if listed:
            raise UsageError("stream takes one prompt; use generate for several")
        sequence = self._requests.sequence(prompts[0], request, "the prompt")
        if request.beams is not None:
            return stream_beams(BeamSearch(self.session, sequence, request.beams), sequence)
        steps = self._decode_alone(sequence, request)
        return TextStream((chunk for chunk in steps if chunk), sequence.result)

    @refuses_unknown_options
    def chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> ChatReply:
        """Generate the model's turn in a conversation, with the checkpoint's chat template.

        Args:
            messages: the history, each with ``role`` and ``content``; append ``ChatReply.message`` to continue it.

        Options:
            tools: functions, or JSON schemas, that the model may call; ``run_tools`` executes the calls.
            tool_choice: "auto", where the model decides; "required", where it must call a tool and writes nothing else;
                or the name of the one that it must call, once.
            strict_tools: the arguments of calls fit the tools' schemas in full.
            parallel_tool_calls: False for one call at most, where calls are constrained by one of the last two.
            enable_thinking: for templates that support it; None for the template's own default.
            documents: for templates that read them.
            template_variables: further variables by name; the template must read each of them.
            continue_final_message: continue the last message instead of answering it.
            template: the name of one of several templates.
            conversation: one made by ``conversation()``; a turn then reads only what is new.
            all others: as ``generate``. json_schema, regex and grammar are for the text after the thought; with tools,
                json_schema is for a turn without calls.

        Raises:
            ArtifactError: there is no chat template, or it is refused.
            PromptError: the template fails on the messages, or the conversation fills the context.
            UsageError: a tool that cannot be described, tools, documents or a variable that the template does not
                read, an unknown option, or a setting out of its range.
        """
        return finish(self.stream_chat(messages, **options))

    @refuses_unknown_options
    def stream_chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> ChatStream:
        """Generate the model's turn as events; after the last one ``reply`` is what ``chat`` would have returned."""
        context = self.session.manifest.model.context_length
        return stream_chat(self, self.chat_format, self.tokenizer, messages, options, context)

    def prepare_constraints(self) -> None:
        """Prepare structured output, which the first call that has a schema, an expression or a grammar does otherwise.

        With a vocabulary of 150,000 tokens that takes seconds, in which no other thread of the process runs.

        Raises:
            UnsupportedError: the tokenizer is of a kind that llguidance does not support.
            DependencyError: llguidance is not installed.
        """
        self._requests.prepare_constraints()

    @refuses_unknown_options
    def conversation(self) -> Conversation:
        """Return a conversation, whose KV cache is kept from call to call; each call takes the whole history."""
        conversation = Conversation(self.session, self._requests, self._speculation)
        self._children.add(conversation)
        return conversation

    @refuses_unknown_options
    def scheduler(
        self,
        *,
        slots: int = 8,
        max_length: int | None = None,
        prefill_tokens: int = 64,
        kept_prompts: int = 0,
        prompt_cache: str | Path | None = None,
        kept_outputs: int = 16_384,
    ) -> Scheduler:
        """Return a scheduler for continuous batching: requests join and leave while others are decoded.

        Args:
            slots: how many requests are decoded together.
            max_length: the most tokens of a request, prompt and continuation together; None for the model's context.
            prefill_tokens: about how many tokens of new prompts a step reads while others are decoded. More make new
                requests begin sooner and the others wait longer; the least is 8. Of a prompt of 512 tokens and more
                fewer are read, so that a step takes about twice as long as without it.
            kept_prompts: how many prompts stay in memory after their requests have ended, for prompts that begin alike.
                Each takes the memory of a slot.
            prompt_cache: a folder for the kept prompts, so that a scheduler that is opened later has them. Their text
                can be read from its files. It needs kept_prompts, and the CPU.
            kept_outputs: how many tokens of earlier requests' texts stay in memory, from which guesses are made for
                later ones (about 0.2 KB each). Results do not depend on them, but how fast they come does: 0 where a
                request must not show in the time of another.

        Raises:
            UsageError: fewer than one slot, or a max_length beyond the context; prompt_cache without kept_prompts, or
                on a GPU.
            OutputError: the folder cannot be written.
            PromptError: there is not enough memory for the KV cache.
        """
        context = self.manifest.model.context_length
        check_limits(
            context,
            slots=slots,
            max_length=max_length,
            prefill_tokens=prefill_tokens,
            kept_prompts=kept_prompts,
            kept_outputs=kept_outputs,
            prompt_cache=prompt_cache,
        )
        scheduler = Scheduler(
            self.session,
            self._requests,
            self._speculation,
            slots,
            max_length or context,
            prefill_tokens,
            kept_prompts,
            None if prompt_cache is None else Path(prompt_cache),
            EarlierTexts(kept_outputs) if kept_outputs else None,
        )
        self._children.add(scheduler)
        return scheduler

    @overload
    def score(
        self,
        text: Prompt,
        *,
        context: Prompt | None = None,
        window: int | None = None,
        stride: int | None = None,
        logprobs: int | None = None,
    ) -> Score: ...
    @overload
    def score(
        self,
        text: Prompts,
        *,
        context: Prompt | Prompts | None = None,
        window: int | None = None,
        stride: int | None = None,
        logprobs: int | None = None,
    ) -> list[Score]: ...
    @refuses_unknown_options
    def score(
        self,
        text: Prompt | Prompts,
        *,
        context: Prompt | Prompts | None = None,
        window: int | None = None,
        stride: int | None = None,
        logprobs: int | None = None,
    ) -> Score | list[Score]:
        """Compute the log-probability of each token of one text or several, given the tokens before it.

        Args:
            text: text or token ids, or a list of either. Results keep the order.
            context: text before ``text`` that is not scored; one for all, or a list with one for each. Context and
                text are tokenized together, and a token that spans the border is scored. Without a context the first
                token is not scored.
            window: the most tokens that the model reads to score one; None for its context length.
            stride: how many tokens each further window scores, where a text is longer than the window. Each token then
                has at least ``window - stride + 1`` tokens before it in view, where there are so many. None refuses
                such a text.
            logprobs: how many of the most likely tokens ``Score.top`` lists for each scored one; None for no list.

        Raises:
            PromptError: an empty text, one token without a context, a text too long, ids out of range, or not enough
                memory.
            UsageError: window, stride or logprobs out of range, or not as many contexts as texts.
        """
        return score(self.session, self.tokenizer, text, context, window, stride, logprobs)

    def close(self) -> None:
        """Release the weights. Later calls raise UsageError; closing twice does nothing."""
        self._loaded = None
        for child in list(self._children):
            child.close()

    def __enter__(self) -> "TextGenerator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def speculation_note(self) -> str | None:
        """Why calls do not speculate unless they say so; None where they do."""
        session = self.session
        if reason := _no_speculation(session):
            return f"it cannot speculate: {reason}"
        reason = pass_dependence(session)
        return None if reason is None else f"checking guesses may change tokens: {reason}"

    @property
    def session(self) -> Session:
        """The loaded graph. Raises UsageError where the model is closed."""
        if self._loaded is None:
            raise UsageError("the model is closed; load it again")
        return self._loaded

    def _open(self, sequences: list[ActiveSequence], slots: int) -> Decoder:
        """Return a decoder with room for any of the sequences in each slot."""
        longest_prompt = max(sequence.prompt.size for sequence in sequences)
        max_length = max(sequence.max_positions for sequence in sequences)
        return open_decoder(self.session, slots, longest_prompt, max_length)

    def _decode_alone(self, sequence: ActiveSequence, request: Request) -> Generator[str, None, None]:
        """Return the chunks of one sequence's text; memory is allocated at the call, not at the first chunk."""
        decoder = self._open([sequence], 1)
        speculation = self._speculation(request, sequence.prompt.size)

        def chunks() -> Generator[str, None, None]:
            if not sequence.expired():
                yield from decode(decoder, sequence, decoder.prefill(0, sequence.prompt), speculation)

        return chunks()

    def _speculation(self, request: Request, prompt: int, earlier: EarlierTexts | None = None) -> Speculation | None:
        """Return how to speculate for a prompt of so many tokens that is decoded alone; None for not at all.

        Args:
            earlier: other texts that guesses may come from; None for none.

        Raises:
            UsageError: the request requires speculation and the artifact cannot, or the draft has another vocabulary.
        """
        session = self.session
        if request.speculate is False:
            return None
        if _no_speculation(session) is not None:
            if request.speculate or request.draft is not None:
                raise UsageError(
                    f"{session.folder} cannot speculate: that needs target 'ort', and rotary frequencies that do not "
                    "depend on the length; leave out speculate and draft"
                )
            return None
        if request.draft is None:
            if request.speculate is None and pass_dependence(session) is not None:
                return None
            return Speculation(SuffixLookup(earlier), pass_cost(session))
        check_draft(session, self.tokenizer, request.draft)
        cost = pass_cost(session, draft_cost(session, request.draft.session))
        return Speculation(DraftModel(request.draft.session, prompt), cost)


def _no_speculation(session: Session) -> str | None:
    """Return why an artifact cannot speculate; None where it can."""
    if session.manifest.target == "standard":
        return "its target is 'standard'"
    return "its rotary frequencies depend on the length" if session.manifest.model.length_dependent_rope else None
