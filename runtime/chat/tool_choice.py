"""Which tools the model may or must call, as a constraint of its text."""

from collections.abc import Sequence

from ...errors import UsageError
from ...files.chat.tool_schema import Schema, function_of
from ..sequence.options import Options
from ..text.tokenizer import Tokenizer
from .call_formats import CallFormat
from .call_grammar import call_grammar
from .tool_calls import BareCalls

CONSTRAINTS = ("json_schema", "regex", "grammar")
"""The options that constrain a text."""


def constrain_calls(
    options: Options,
    tools: Sequence[Schema],
    tokenizer: Tokenizer,
    format: CallFormat,
    *,
    choice: str,
    strict: bool,
    several: bool,
) -> BareCalls:
    """Change the options so that the model calls tools as it should; return which calls may have no tags.

    Args:
        tools: the tools, as JSON schemas.
        choice: "auto", "required", or the name of a tool.
        strict: the arguments of calls fit the schemas in full.
        several: there may be more than one call.

    Raises:
        UsageError: a choice that is not one of the tools, or a constraint that cannot be combined with it.
    """
    if choice != "auto" and not tools:
        raise UsageError(f"tool_choice is {choice!r}, and there are no tools; give tools, or leave it out")
    given = next((name for name in CONSTRAINTS if options.get(name) is not None), None)
    forced = choice != "auto"
    if given is not None and (forced or (strict and given != "json_schema")):
        raise UsageError(
            f"{given} is for the text of an answer, and tool_choice or strict_tools for calls in its place; "
            "give one of them, or json_schema with tool_choice 'auto'"
        )
    if not tools or not (forced or strict or given == "json_schema"):
        return "all"
    if choice not in ("auto", "required"):
        tools, several = [tool for tool in tools if function_of(tool)["name"] == choice], False
        if not tools:
            raise UsageError(f"tool_choice is {choice!r}, which is neither 'auto', 'required' nor the name of a tool")
    answer = options.get("json_schema")
    options["json_schema"] = None
    options["grammar"] = call_grammar(tools, tokenizer, format=format, forced=forced, several=several, answer=answer)
    return "none" if forced or answer is not None else "fitting"
