"""Tools of a chat: OpenAI's ``tools`` and ``tool_choice``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from ...errors import ApiError
from ...forms import Body

MOST_TOOLS = 128

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
MODES = ("none", "auto", "required")


class Function(Body):
    """A function that the model may call."""

    name: Name
    description: Annotated[str, Field(max_length=100_000)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool."""

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """The name of a function."""

    name: str


class NamedTool(Body):
    """A tool that has been given, by its name."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Body):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MOST_TOOLS)]


class AllowedToolsChoice(Body):
    """``tool_choice`` of some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedToolsChoice


@dataclass(frozen=True)
class Calling:
    """What the model may call.

    Attributes:
        tools: those that it sees, as JSON schemas; empty for none.
        choice: "auto", "required", or the name of the one that it must call.
        strict: the arguments of its calls must fit the schemas.
    """

    tools: Sequence[dict[str, Any]] = ()
    choice: str = "auto"
    strict: bool = False


def calling(tools: Sequence[Tool] | None, choice: ToolChoice | None) -> Calling:
    """Return what the model may call. Tools that it may not call are not shown to it.

    Raises:
        ApiError: two tools of one name, or a choice that is not one of the tools.
    """
    if not tools:
        if choice not in (None, "none", "auto"):
            raise ApiError("tool_choice: there are no tools to choose from; give tools", param="tool_choice")
        return Calling()
    by_name: dict[str, Tool] = {}
    for index, tool in enumerate(tools):
        if tool.function.name in MODES:
            param = f"tools[{index}].function.name"
            raise ApiError(f"{param}: {tool.function.name!r} is a tool_choice; give another name", param=param)
        if by_name.setdefault(tool.function.name, tool) is not tool:
            param = f"tools[{index}].function.name"
            raise ApiError(f"{param}: there are two tools {tool.function.name!r}; give each its own name", param=param)
    if choice == "none":
        return Calling()
    chosen = list(by_name)
    mode: str = choice if isinstance(choice, str) else "auto"
    if isinstance(choice, NamedTool):
        mode = choice.function.name
        _check_known(mode, by_name, "tool_choice.function.name")
    elif isinstance(choice, AllowedToolsChoice):
        allowed = choice.allowed_tools
        chosen, mode = [one.function.name for one in allowed.tools], allowed.mode
        for index, name in enumerate(chosen):
            _check_known(name, by_name, f"tool_choice.allowed_tools.tools[{index}].function.name")
    shown = [by_name[name] for name in dict.fromkeys(chosen)]
    return Calling([_schema(tool) for tool in shown], mode, any(tool.function.strict for tool in shown))


def _check_known(name: str, tools: Mapping[str, Tool], param: str) -> None:
    if name not in tools:
        known = ", ".join(tools)[:200]
        raise ApiError(f"{param}: there is no tool {name[:128]!r}; the tools are: {known}", param=param)


def _schema(tool: Tool) -> dict[str, Any]:
    """Return a tool as templates show it; without parameters it takes none."""
    shown: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description is not None:
        shown["description"] = tool.function.description
    shown["parameters"] = tool.function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": shown}
