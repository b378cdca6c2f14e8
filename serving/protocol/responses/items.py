"""The items of a response's input, and the messages of chat that they are.

reasoning, message, function_call ...   one turn of the assistant: thought, text, calls
function_call_output                    a message of the role "tool"
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from ...forms import Body
from .only import only, refusal

Message = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete"]


class TextPart(Body):
    """Text of a message; annotations and logprobs are there where a part of an answer is sent back."""

    type: Annotated[
        Literal["input_text", "output_text"], only("input_text", "output_text", reason="the model reads text alone")
    ]
    text: str
    annotations: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None


class MessageItem(Body):
    """A message of any role."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[TextPart]
    id: str | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class ReasoningText(Body):
    """Text of a thought."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(Body):
    """A thought of the assistant."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[ReasoningText] = Field(default_factory=list)
    content: list[ReasoningText] = Field(default_factory=list)
    status: Status | None = None


class FunctionCallItem(Body):
    """A call that the assistant made; ``arguments`` is JSON."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None


class FunctionCallOutputItem(Body):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[TextPart]
    id: str | None = None
    status: Status | None = None


def _kind(item: Any) -> str | None:
    """Return the type of an item; one without a type is a message."""
    kind = item.get("type", "message") if isinstance(item, Mapping) else getattr(item, "type", None)
    return kind if isinstance(kind, str) else None


def _known(item: Any) -> Any:
    if isinstance(item, Mapping) and _kind(item) not in KINDS:
        raise refusal(item.get("type"), f"an item is one of {', '.join(KINDS)}")
    return item


KINDS = ("message", "reasoning", "function_call", "function_call_output")
Item = Annotated[
    Annotated[MessageItem, Tag(KINDS[0])]
    | Annotated[ReasoningItem, Tag(KINDS[1])]
    | Annotated[FunctionCallItem, Tag(KINDS[2])]
    | Annotated[FunctionCallOutputItem, Tag(KINDS[3])],
    Discriminator(_kind, custom_error_type="no_item", custom_error_message="Input should be an object"),
    BeforeValidator(_known),
]


def messages_of(items: Sequence[Item]) -> tuple[list[Message], list[int]]:
    """Return the messages of chat, and for each the position of the item that it begins with."""
    messages: list[Message] = []
    origins: list[int] = []
    for position, item in enumerate(items):
        if isinstance(item, MessageItem) and item.role != "assistant":
            messages.append({"role": item.role, "content": _content(item.content)})
        elif isinstance(item, FunctionCallOutputItem):
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _content(item.output)})
        else:
            _add_to_turn(messages, item)
        origins += [position] * (len(messages) - len(origins))
    return messages, origins


def _add_to_turn(messages: list[Message], item: MessageItem | ReasoningItem | FunctionCallItem) -> None:
    """Add an item of the assistant to its turn: the last message, or a new one where that is complete."""
    turn: Message | None = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    complete = turn is not None and ("content" in turn or "tool_calls" in turn)
    if turn is None or (complete and not isinstance(item, FunctionCallItem)):
        turn = {"role": "assistant"}
        messages.append(turn)
    if isinstance(item, ReasoningItem):
        text = "".join(part.text for part in item.content or item.summary)
        turn["reasoning_content"] = turn.get("reasoning_content", "") + text
    elif isinstance(item, MessageItem):
        turn["content"] = _content(item.content)
    else:
        function = {"name": item.name, "arguments": item.arguments}
        turn.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})


def _content(content: str | Sequence[TextPart]) -> str | list[dict[str, str]]:
    return content if isinstance(content, str) else [{"type": "text", "text": part.text} for part in content]
