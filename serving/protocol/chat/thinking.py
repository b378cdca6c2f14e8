"""Variables of the chat template, and how much the model is to think."""

from typing import Any

from ....files.chat.template import ChatFormat
from ....runtime.chat.chat import RESERVED
from ...errors import ApiError
from .body import ChatBody

THINKING = ("enable_thinking", "reasoning_effort")
"""Variables by which templates are told how much to think."""


def template_variables(body: ChatBody, chat_format: ChatFormat) -> dict[str, Any]:
    """Return the variables of the template.

    ``reasoning_effort`` is the template's own variable of that name, or else its ``enable_thinking``, which "none"
    switches off and all others on.

    Raises:
        ApiError: one that the template does not read, so that it would have no effect.
    """
    variables = dict(body.chat_template_kwargs or {})
    tools = bool(body.tools)
    for name, value in variables.items():
        param = f"chat_template_kwargs.{name}"
        if name in RESERVED:
            raise ApiError(f"{param}: the request itself says so; leave it out", param=param)
        # A model that does not think obeys enable_thinking false.
        obeyed = name == "enable_thinking" and value is False
        if not obeyed and not chat_format.reads(name, with_tools=tools):
            raise ApiError(f"{param}: the model's chat template does not read it; leave it out", param=param)
    effort = body.reasoning_effort
    if effort is None:
        return variables
    if given := [name for name in THINKING if name in variables]:
        raise ApiError(
            f"reasoning_effort: chat_template_kwargs has {given[0]} as well; give one of them", param="reasoning_effort"
        )
    if chat_format.reads("reasoning_effort", with_tools=tools):
        return {**variables, "reasoning_effort": effort}
    if chat_format.reads("enable_thinking", with_tools=tools):
        return {**variables, "enable_thinking": effort != "none"}
    if effort == "none":
        return variables
    raise ApiError(
        "reasoning_effort: the model's chat template cannot ask for a thought; leave it out, or give 'none'",
        param="reasoning_effort",
    )
