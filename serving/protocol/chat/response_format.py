"""The form of the answer, as a constraint of the runtime."""

from typing import Any

from ....runtime.chat.chat import ChatOptions
from ...errors import ApiError
from .body import ChatBody, ResponseFormat

ANY_OBJECT = {"type": "object"}


def set_constraint(body: ChatBody, options: ChatOptions) -> None:
    """Set the constraint of a body's answer. A schema holds in full, strict or not; calls of tools are not answers.

    Raises:
        ApiError: a form that cannot be had, alone or with another parameter.
    """
    schema = _schema(body.response_format)
    param = None if schema is None else "response_format"
    if schema is not None:
        options["json_schema"] = schema
    if body.structured_outputs is not None:
        if param is not None:
            raise _wrong("structured_outputs", "response_format says the form already; give one of them")
        param, outputs = "structured_outputs", body.structured_outputs
        options["json_schema"], options["regex"] = outputs.json_schema, outputs.regex
        options["grammar"] = outputs.grammar
        if options.get("tools"):
            raise _wrong(param, "it is for all text, and tools are called in it; leave one of them out")
    forced = options.get("tool_choice", "auto") != "auto"
    if options.get("continue_final_message") and (param or forced):
        raise _wrong(param or "tool_choice", "it is for a whole turn; leave out continue_final_message")
    if param is not None and forced:
        raise _wrong("tool_choice", f"it leaves no answer that could be in the {param}; give 'auto'")


def _schema(given: ResponseFormat | None) -> dict[str, Any] | None:
    """Return the schema of an answer; None for text."""
    if given is None:
        return None
    if (given.type == "json_schema") != (given.json_schema is not None):
        reason = "type 'json_schema' needs it" if given.json_schema is None else f"it is not for type {given.type!r}"
        raise _wrong("response_format.json_schema", reason)
    if given.json_schema is not None:
        return {} if given.json_schema.schema_ is None else given.json_schema.schema_
    return ANY_OBJECT if given.type == "json_object" else None


def constraint_param(body: ChatBody) -> str:
    """Return the parameter that a constraint which cannot be used is from."""
    if body.response_format is not None and body.response_format.json_schema is not None:
        return "response_format.json_schema.schema"
    return "tools" if body.tools else "structured_outputs"


def _wrong(param: str, reason: str) -> ApiError:
    return ApiError(f"{param}: {reason}", param=param)
