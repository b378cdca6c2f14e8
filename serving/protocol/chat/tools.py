"""Tools of a chat: OpenAI's ``tools`` and ``tool_choice``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from ...errors import ApiError
from ...forms import Body

MOST_TOOLS = 128

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


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
        forced: it must call at least one of them.
        strict: the arguments of its calls must fit the schemas.
    """

    tools: Sequence[dict[str, Any]] = ()
    forced: bool = False
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
        if by_name.setdefault(tool.function.name, tool) is not tool:
            param = f"tools[{index}].function.name"
            raise ApiError(f"{param}: there are two tools {tool.function.name!r}; give each its own name", param=param)
    if choice == "none":
        return Calling()
    if isinstance(choice, NamedTool):
        names, forced = [choice.function.name], True
        params = ["tool_choice.function.name"]
    elif isinstance(choice, AllowedToolsChoice):
        names, forced = (
            [one.function.name for one in choice.allowed_tools.tools],
            choice.allowed_tools.mode == "required",
        )
        params = [f"tool_choice.allowed_tools.tools[{index}].function.name" for index in range(len(names))]
    else:
        names, forced = list(by_name), choice == "required"
        params = []
    for name, param in zip(names, params, strict=False):
        if name not in by_name:
            known = ", ".join(by_name)[:200]
            raise ApiError(f"{param}: there is no tool {name[:128]!r}; the tools are: {known}", param=param)
    chosen = [by_name[name] for name in dict.fromkeys(names)]
    return Calling([_schema(tool) for tool in chosen], forced, any(tool.function.strict for tool in chosen))


def _schema(tool: Tool) -> dict[str, Any]:
    """Return a tool as templates show it; without parameters it takes none."""
    shown: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description is not None:
        shown["description"] = tool.function.description
    shown["parameters"] = tool.function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": shown}
