"""Chat: messages in; thought, answer and tool calls out, as they come or as a whole.

    messages ─▶ chat template ─▶ prompt ─▶ generation ─▶ Reasoning ─▶ ToolCalls ─▶ events ─▶ ChatReply

``TextGenerator.chat`` and ``stream_chat`` are the way in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Unpack, cast

from ...errors import ArtifactError
from ..sequence.generation import Generation
from ..sequence.options import Options
from ..sequence.stream import TextStream
from ..text.tokenizer import Tokenizer
from .reasoning import Reasoning
from .template import ChatFormat, Message
from .tool_calls import BrokenToolCall, ToolCall, ToolCalls
from .tool_schema import Tool, tool_schemas

THINK = "<think>"


class Generator(Protocol):
    """What continues a prompt: a ``TextGenerator``, or a ``Conversation`` that keeps what it has read."""

    def stream(self, prompt: list[int], **options: Unpack[Options]) -> TextStream[Generation]: ...


@dataclass(frozen=True)
class ChatEvent:
    """Something that the model said: a piece of its thought or its answer, or a whole call of a tool."""

    kind: Literal["thought", "answer", "call", "broken_call"]
    text: str
    call: ToolCall | BrokenToolCall | None = None


@dataclass(frozen=True)
class ChatReply:
    """A turn of the model's.

    ``text`` is the answer; ``thought`` what came before it between the tags, None where there was no such block.
    ``message`` is what the history goes on with. ``generation`` is None where the turn was broken off.
    """

    text: str
    thought: str | None
    tool_calls: tuple[ToolCall, ...]
    broken_calls: tuple[BrokenToolCall, ...]
    message: dict[str, Any]
    generation: Generation | None


@dataclass
class ChatStream(Iterator[ChatEvent]):
    """The events of a turn. ``reply`` is what has been said so far; after the last event, the whole turn."""

    _pieces: TextStream[Generation]
    _reasoning: Reasoning
    _calls: ToolCalls | None
    _begun: str = ""
    _waiting: list[ChatEvent] = field(default_factory=list)
    _events: list[ChatEvent] = field(default_factory=list)
    _ended: bool = False

    def __next__(self) -> ChatEvent:
        while not self._waiting:
            if self._ended:
                raise StopIteration
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
                self._take(self._reasoning.flush())
                if self._calls is not None:
                    self._found(self._calls.flush())
            else:
                self._take(self._reasoning.push(piece))
        event = self._waiting.pop(0)
        self._events.append(event)
        return event

    @property
    def reply(self) -> ChatReply:
        """The turn, from the events that were taken."""
        calls = tuple(event.call for event in self._events if isinstance(event.call, ToolCall))
        broken = tuple(event.call for event in self._events if isinstance(event.call, BrokenToolCall))
        thought = self._said("thought").strip() if self._reasoning.thinking else None
        text = self._said("answer")
        text = text.rstrip() if calls or broken else text
        # The model should see the call that failed as it wrote it, beside the reason.
        content = self._begun + "\n".join([*([text] if text else []), *(call.text for call in broken)])
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if thought:
            message["reasoning_content"] = thought
        if calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call in calls
            ]
        return ChatReply(text, thought, calls, broken, message, self._pieces.generation)

    def close(self) -> None:
        """End the turn early."""
        self._ended = True
        self._pieces.close()

    def _said(self, kind: str) -> str:
        return "".join(event.text for event in self._events if event.kind == kind)

    def _take(self, parts: Sequence[Any]) -> None:
        for part in parts:
            if part.kind == "answer" and self._calls is not None:
                self._found(self._calls.push(part.text))
            else:
                self._waiting.append(ChatEvent(part.kind, part.text))

    def _found(self, found: Sequence[str | ToolCall | BrokenToolCall]) -> None:
        for one in found:
            if isinstance(one, str):
                self._waiting.append(ChatEvent("answer", one))
            else:
                self._waiting.append(ChatEvent("call" if isinstance(one, ToolCall) else "broken_call", str(one), one))


class ChatOptions(Options, total=False):
    """How to chat; ``TextGenerator.chat`` says what each of them means."""

    tools: Sequence[Tool] | None
    enable_thinking: bool | None
    documents: Sequence[Mapping[str, Any]] | None
    continue_final_message: bool
    template: str | None
    template_variables: Mapping[str, Any] | None
    conversation: Generator | None


def stream_chat(
    generator: Generator,
    chat_format: ChatFormat,
    tokenizer: Tokenizer | None,
    messages: Sequence[Message],
    options: ChatOptions,
) -> ChatStream:
    """The model's next turn.

    Raises:
        ArtifactError, PromptError, UsageError: as ``ChatFormat.render`` and ``TextGenerator.generate``.
    """
    if tokenizer is None:
        raise ArtifactError(
            f"{chat_format.place} has no tokenizer.json, so it cannot chat; "
            "put the file beside the checkpoint and export the model again"
        )
    tools = options.get("tools")
    schemas = None if tools is None else tool_schemas(tools)
    calls = ToolCalls(schemas) if schemas else None  # which says so, where a schema has no name
    variables = dict(options.get("template_variables") or {})
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
    # The template writes the special tokens itself.
    tokens = tokenizer.encode_with_offsets(prompt, add_special_tokens=False).ids
    begun = messages[-1].get("content") if continued else ""
    settings = cast(Options, {name: value for name, value in options.items() if name in Options.__annotations__})
    return ChatStream(
        (options.get("conversation") or generator).stream(tokens, **settings),
        Reasoning(opened=prompt.rstrip().endswith(THINK)),
        calls,
        begun if isinstance(begun, str) else "",
    )


def finish(stream: ChatStream, on_event: Callable[[ChatEvent], object] | None = None) -> ChatReply:
    """The whole turn; ``on_event`` hears each event as it comes."""
    for event in stream:
        if on_event is not None:
            on_event(event)
    return stream.reply
