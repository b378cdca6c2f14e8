"""Chat: messages in; thought, answer and tool calls out, streamed or complete.

    messages ─▶ chat template ─▶ prompt ─▶ generation ─▶ ReasoningParser ─▶ ToolCallParser ─▶ events ─▶ ChatReply

Use it through ``TextGenerator.chat`` and ``TextGenerator.stream_chat``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Unpack, cast

from ...errors import ArtifactError, UsageError
from ...files.chat.forms import text_of_parts
from ...files.chat.messages import Message, normalize_messages
from ...files.chat.template import ChatFormat
from ...files.chat.tool_schema import Tool, tool_schemas
from ...known_options import check_options
from ..sequence.options import Options
from ..sequence.sequence import Generation
from ..sequence.stream import TextStream
from ..text.tokenizer import Tokenizer
from .call_grammar import format_of
from .reasoning import CLOSE, ReasoningParser, ReplySpan, open_thought
from .tool_call import BrokenToolCall, ToolCall
from .tool_calls import BareCalls, TextOrCall, ToolCallParser
from .tool_choice import CONSTRAINTS, constrain_calls

RESERVED = ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "template")
"""Names that ``template_variables`` cannot set."""


class SupportsStream(Protocol):
    """An object that continues a prompt: a ``TextGenerator``, or a ``Conversation``, which keeps its KV cache."""

    def stream(self, prompt: list[int], **options: Unpack[Options]) -> TextStream[Generation]: ...


@dataclass(frozen=True)
class ChatEvent:
    """A part of the model's turn: some text of its thought or answer, or a complete tool call."""

    kind: Literal["thought", "answer", "call", "broken_call"]
    text: str
    call: ToolCall | BrokenToolCall | None = None


@dataclass(frozen=True)
class ChatReply:
    """A turn of the model.

    Attributes:
        text: the answer.
        thought: the text of the reasoning block; None without one.
        tool_calls: the calls that can be executed.
        broken_calls: the calls that cannot, each with the reason.
        message: the turn as a message, to append to the history.
        generation: token ids and finish reason; None if the stream was closed early.
    """

    text: str
    thought: str | None
    tool_calls: tuple[ToolCall, ...]
    broken_calls: tuple[BrokenToolCall, ...]
    message: dict[str, Any]
    generation: Generation | None


class ChatParser:
    """Splits the text of one turn into events; ``push`` takes chunks of it in order, and ``flush`` ends it.

    Args:
        opened: the prompt has opened the thought already.
        schemas: the tools, as JSON schemas; None for none.
        bare_calls: which calls may have no tags. Where those are not all, a ``call_grammar`` constrains the others.
        continued_text, continued_thought: what the message has already that the turn continues.
    """

    def __init__(
        self,
        *,
        opened: bool = False,
        schemas: Sequence[Mapping[str, Any]] | None = None,
        bare_calls: BareCalls = "all",
        continued_text: str = "",
        continued_thought: str = "",
    ) -> None:
        self._reasoning = ReasoningParser(opened=opened)
        self._calls = ToolCallParser(schemas, bare=bare_calls) if schemas else None
        self.constrained = bare_calls != "all"
        """A ``call_grammar`` makes calls fit their schemas."""
        self._continued_text = continued_text
        self._continued_thought = continued_thought

    @property
    def in_thought(self) -> bool:
        """The text so far ends inside the reasoning block."""
        return self._reasoning.in_thought

    @property
    def has_thought(self) -> bool:
        """The text has a reasoning block, possibly an empty one."""
        return self._reasoning.has_thought

    @property
    def has_tools(self) -> bool:
        """The text may have tool calls."""
        return self._calls is not None

    @property
    def certain_call(self) -> str | None:
        """The text so far of a call that is being written and will fit its schema; None where there is none."""
        return self._calls.open_call if self._calls is not None and self.constrained else None

    def push(self, chunk: str) -> list[ChatEvent]:
        """Add a chunk of text; return the events that are certain now."""
        return self._events(self._reasoning.push(chunk))

    def flush(self) -> list[ChatEvent]:
        """Return the events of what was held back at the end of the text."""
        events = self._events(self._reasoning.flush())
        return events if self._calls is None else events + _of_answer(self._calls.flush())

    def reply(self, events: Sequence[ChatEvent], generation: Generation | None) -> ChatReply:
        """Return the turn that consists of these events."""

        def joined(kind: str) -> str:
            return "".join(event.text for event in events if event.kind == kind)

        calls = tuple(event.call for event in events if isinstance(event.call, ToolCall))
        broken = tuple(event.call for event in events if isinstance(event.call, BrokenToolCall))
        thought = joined("thought").strip() if self._reasoning.has_thought else None
        text = joined("answer")
        text = text.rstrip() if calls or broken else text
        # The next prompt shows a broken call as the model wrote it, followed by the reason.
        content = self._continued_text + "\n".join([*([text] if text else []), *(call.text for call in broken)])
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if whole_thought := (self._continued_thought + joined("thought")).strip():
            message["reasoning_content"] = whole_thought
        if calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls
            ]
        return ChatReply(text, thought, calls, broken, message, generation)

    def _events(self, spans: Sequence[ReplySpan]) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        for span in spans:
            if span.kind == "answer" and self._calls is not None:
                events += _of_answer(self._calls.push(span.text))
            else:
                events.append(ChatEvent(span.kind, span.text))
        return events


def _of_answer(parts: Sequence[TextOrCall]) -> list[ChatEvent]:
    """Return the events of an answer's text and calls."""
    return [
        ChatEvent("answer", part)
        if isinstance(part, str)
        else ChatEvent("call" if isinstance(part, ToolCall) else "broken_call", str(part), part)
        for part in parts
    ]


@dataclass
class ChatStream(Iterator[ChatEvent]):
    """An iterator over the events of a turn; ``reply`` is the turn so far, and complete after the last event."""

    _text: TextStream[Generation]
    _parser: ChatParser
    _queue: list[ChatEvent] = field(default_factory=list)
    _events: list[ChatEvent] = field(default_factory=list)  # those already returned
    _ended: bool = False

    def __next__(self) -> ChatEvent:
        while not self._queue:
            if self._ended:
                raise StopIteration
            chunk = next(self._text, None)
            self._ended = chunk is None
            self._queue += self._parser.flush() if chunk is None else self._parser.push(chunk)
        event = self._queue.pop(0)
        self._events.append(event)
        return event

    @property
    def reply(self) -> ChatReply:
        """The turn as far as its events have been read."""
        return self._parser.reply(self._events, self._text.generation)

    def close(self) -> None:
        """Stop the generation; no more events follow."""
        self._ended = True
        self._text.close()


class ChatOptions(Options, total=False):
    """Options of a chat turn, documented in ``TextGenerator.chat``."""

    tools: Sequence[Tool] | None
    tool_choice: str | None
    strict_tools: bool | None
    parallel_tool_calls: bool | None
    enable_thinking: bool | None
    documents: Sequence[Mapping[str, Any]] | None
    continue_final_message: bool
    template: str | None
    template_variables: Mapping[str, Any] | None
    conversation: SupportsStream | None


@dataclass(frozen=True)
class ChatTurn:
    """A turn that is ready to be generated: the prompt, its tokens, the options of generation, a parser of its own."""

    prompt: str
    tokens: list[int]
    options: Options
    parser: ChatParser


def prepare_turn(
    chat_format: ChatFormat,
    tokenizer: Tokenizer | None,
    messages: Sequence[Message],
    options: ChatOptions,
    context_length: int | None = None,
) -> ChatTurn:
    """Render the messages with the chat template.

    Args:
        context_length: of the model, in tokens; a prompt that is certainly longer is refused before it is tokenized.

    Raises:
        ArtifactError, PromptError, UsageError: as ``ChatFormat.render``.
    """
    if tokenizer is None:
        raise ArtifactError(
            f"{chat_format.name} has no tokenizer.json, so it cannot chat; "
            "put the file beside the checkpoint and export the model again"
        )
    check_options("chat", options, tuple(ChatOptions.__annotations__))
    tools = options.get("tools")
    schemas = None if tools is None else tool_schemas(tools)
    variables = _template_variables(options.get("template_variables") or {})
    if (thinking := options.get("enable_thinking")) is not None:
        variables["enable_thinking"] = thinking
    continued = options.get("continue_final_message", False)
    prompt = chat_format.render(
        messages,
        tools=schemas,
        documents=options.get("documents"),
        continue_final_message=continued,
        template=options.get("template"),
        **variables,
    )
    if context_length is not None:
        tokenizer.check_length(prompt, context_length - 1, "the conversation")
    # The template writes the special tokens itself.
    tokens = tokenizer.encode_with_offsets(prompt, add_special_tokens=False).ids
    final = text_of_parts(normalize_messages(messages[-1:])[0].get("content")) if continued else ""
    thought = open_thought(prompt, final)
    settings = cast(Options, {name: value for name, value in options.items() if name in Options.__annotations__})
    bare_calls = constrain_calls(
        settings,
        schemas or [],
        tokenizer,
        format_of(chat_format.source(options.get("template"), with_tools=schemas is not None)),
        choice=options.get("tool_choice") or "auto",
        strict=bool(options.get("strict_tools")),
        several=options.get("parallel_tool_calls") is not False,
    )
    if thought is not None and any(settings.get(name) is not None for name in CONSTRAINTS):
        settings["constrain_after"] = CLOSE
    parser = ChatParser(
        opened=thought is not None,
        schemas=schemas,
        bare_calls=bare_calls,
        continued_text=final if thought is None else "",
        continued_thought=thought or "",
    )
    return ChatTurn(prompt, tokens, settings, parser)


def stream_chat(
    generator: SupportsStream,
    chat_format: ChatFormat,
    tokenizer: Tokenizer | None,
    messages: Sequence[Message],
    options: ChatOptions,
    context_length: int | None = None,
) -> ChatStream:
    """Render the messages and stream the model's next turn; arguments and errors as ``prepare_turn``.

    Raises:
        PromptError, UsageError: also as ``TextGenerator.generate``.
    """
    turn = prepare_turn(chat_format, tokenizer, messages, options, context_length)
    return ChatStream((options.get("conversation") or generator).stream(turn.tokens, **turn.options), turn.parser)


def _template_variables(given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if name in RESERVED:
            raise UsageError(f"template_variables: {name!r} is set by the call itself; leave it out")
    return dict(given)


def finish(stream: ChatStream, on_event: Callable[[ChatEvent], object] | None = None) -> ChatReply:
    """Read the stream to its end and return the complete turn; call ``on_event(event)`` for each event."""
    for event in stream:
        if on_event is not None:
            on_event(event)
    return stream.reply
