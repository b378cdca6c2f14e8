"""Messages of a chat: OpenAI's form, checked, to the form that chat templates read."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from ....files.json_file import parse_json
from ...errors import ApiError
from ...forms import Body

MOST_MESSAGES = 10_000
REFUSED_PARTS = {"image_url": "images", "input_audio": "audio", "file": "files"}


class Part(Body):
    """A part of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None


class CalledFunction(Body):
    """The function of a call; ``arguments`` are the text of a JSON object."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str


class Call(Body):
    """A call that the model has made."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # clients that collect a stream keep it


class Message(Body):
    """A message. ``reasoning_content``, or ``reasoning``, is the thought of an assistant's message."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None  # clients send back the empty list they got


def template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the messages as the runtime's chat templates read them.

    The results of one turn's calls are in the order of the calls, since templates show results without their ids.

    Raises:
        ApiError: a message says what no model can read, or a tool's result answers no call.
    """
    found: list[dict[str, Any]] = []
    calls: list[Call] = []  # of the last assistant's message
    answered: dict[int, dict[str, Any]] = {}  # the results that came since, by the position of their call
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.role == "tool":
            position = _answered_call(message, calls, where)
            if position in answered:
                raise _wrong(f"{where}.tool_call_id", f"the call {message.tool_call_id!r} has a result already")
            answered[position] = {
                "role": "tool",
                "name": calls[position].function.name,
                "content": _text(message, where),
                "tool_call_id": message.tool_call_id,
            }
            continue
        found += [answered[position] for position in sorted(answered)]
        answered = {}
        found.append(_plain(message, where))
        calls = message.tool_calls or []
    return found + [answered[position] for position in sorted(answered)]


def _plain(message: Message, where: str) -> dict[str, Any]:
    """Return a message that is not a tool's result."""
    if message.role == "function":
        raise _wrong(f"{where}.role", "role 'function' is not supported; give role 'tool' and tool_call_id")
    if message.tool_call_id is not None:
        raise _wrong(f"{where}.tool_call_id", "only messages of role 'tool' have a tool_call_id; leave it out")
    plain: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role}
    if message.name is not None:
        plain["name"] = message.name
    if message.role != "assistant":
        for name in ("tool_calls", "reasoning_content", "reasoning", "refusal"):
            if getattr(message, name) not in (None, []):
                raise _wrong(f"{where}.{name}", f"only messages of role 'assistant' have {name}; leave it out")
        return {**plain, "content": _text(message, where)}
    thought = message.reasoning_content if message.reasoning_content is not None else message.reasoning
    if thought is not None:
        plain["reasoning_content"] = thought
    if message.tool_calls:
        plain["tool_calls"] = [
            _plain_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls)
        ]
    if message.content is None and message.refusal is not None:
        return {**plain, "content": message.refusal}
    if message.content is None and not message.tool_calls:
        raise _wrong(f"{where}.content", "an assistant's message needs content or tool_calls")
    return {**plain, "content": None if message.content is None else _text(message, where)}


def _text(message: Message, where: str) -> str | list[dict[str, Any]]:
    """Return the content as text, or as parts of text where there are several.

    Raises:
        ApiError: there is none, or a part is not text.
    """
    if message.content is None:
        raise _wrong(f"{where}.content", f"a message of role {message.role!r} needs content; give text")
    if isinstance(message.content, str):
        return message.content
    texts = [_part_text(part, message.role, f"{where}.content[{at}]") for at, part in enumerate(message.content)]
    if not texts:
        raise _wrong(f"{where}.content", "the list of parts is empty; give text, or at least one part")
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]


def _part_text(part: Part, role: str, where: str) -> str:
    if part.type in REFUSED_PARTS:
        what = REFUSED_PARTS[part.type]
        raise _wrong(where, f"the model reads text, not {what}; give parts of type 'text'")
    key = "refusal" if part.type == "refusal" and role == "assistant" else "text"
    if key != part.type:
        raise _wrong(f"{where}.type", f"a part of type {part.type[:40]!r} is not supported here; give type 'text'")
    text: str | None = getattr(part, key)
    if text is None:
        raise _wrong(f"{where}.{key}", "a part has no text; give some")
    return text


def _plain_call(call: Call, where: str) -> dict[str, Any]:
    """Return a call with its arguments as an object, which templates show as the model has learned it.

    Arguments that are not an object's JSON stay text: the model may have written them so.
    """
    try:
        arguments = parse_json(call.function.arguments, strict=False)
    except ValueError:
        arguments = None
    return {
        "id": call.id,
        "type": "function",
        "function": {
            "name": call.function.name,
            "arguments": arguments if isinstance(arguments, dict) else call.function.arguments,
        },
    }


def _answered_call(message: Message, calls: Sequence[Call], where: str) -> int:
    """Return the position of the call that a tool's result answers."""
    if message.tool_call_id is None:
        raise _wrong(f"{where}.tool_call_id", "a message of role 'tool' needs the tool_call_id of the call it answers")
    for position, call in enumerate(calls):
        if call.id == message.tool_call_id:
            return position
    known = ", ".join(call.id for call in calls)[:200]
    advice = f"the calls are: {known}" if known else "it must follow an assistant's message with tool_calls"
    raise _wrong(f"{where}.tool_call_id", f"there is no call {message.tool_call_id[:100]!r} before it; {advice}")


def _wrong(param: str, reason: str) -> ApiError:
    return ApiError(f"{param}: {reason}", param=param)
