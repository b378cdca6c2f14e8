"""LiteLLM and LangChain: a conversation, a stream and a tool's call each, by the keys of the features."""

# pyright: reportMissingImports=false

import os
from collections.abc import Callable, Mapping
from typing import Any

from .facts import MESSAGES, TOKENS, Facts
from .tools_features import WEATHER, check_weather

Trial = Callable[[str, str, Facts], str | None]
"""Tries a feature of a server (its address) with a model; returns what the table says, or None for "yes"."""

FACT = "the library's text"


def _litellm(address: str, model: str, **options: Any) -> Any:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks the network for prices
    import litellm

    given = {"model": f"openai/{model}", "api_base": f"{address}/v1", "api_key": "none", "messages": MESSAGES}
    return litellm.completion(**given, temperature=0, **options)


def litellm_chat(address: str, model: str, facts: Facts) -> str:
    answer = _litellm(address, model, max_completion_tokens=TOKENS)
    assert answer.choices[0].message.content == facts.chat
    assert answer.usage.prompt_tokens == facts.prompt_tokens
    return FACT


def litellm_stream(address: str, model: str, facts: Facts) -> str:
    chunks = list(_litellm(address, model, max_completion_tokens=TOKENS, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == facts.chat
    return FACT


def litellm_tools(address: str, model: str, facts: Facts) -> None:
    options = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    answer = _litellm(address, model, max_completion_tokens=110, **options)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    check_weather(call.function.arguments)


def _langchain(address: str, model: str, tokens: int, **options: Any) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=model,
        base_url=f"{address}/v1",
        api_key=lambda: "none",
        temperature=0,
        max_completion_tokens=tokens,
        **options,
    )


def _langchain_chat(*, responses: bool) -> Trial:
    def chat(address: str, model: str, facts: Facts) -> str:
        answer = _langchain(address, model, TOKENS, use_responses_api=responses).invoke(MESSAGES)
        assert answer.text == facts.chat
        assert answer.usage_metadata["input_tokens"] == facts.prompt_tokens
        return FACT

    return chat


def _langchain_stream(*, responses: bool) -> Trial:
    def stream(address: str, model: str, facts: Facts) -> str:
        chunks = list(_langchain(address, model, TOKENS, use_responses_api=responses).stream(MESSAGES))
        assert "".join(chunk.text for chunk in chunks) == facts.chat
        return FACT

    return stream


def _langchain_tools(*, responses: bool) -> Trial:
    def tools(address: str, model: str, facts: Facts) -> None:
        chat = _langchain(address, model, 110, use_responses_api=responses)
        bound = chat.bind_tools([WEATHER], tool_choice="required", parallel_tool_calls=False)
        (call,) = bound.invoke(MESSAGES).tool_calls
        assert call["name"] == "weather"
        assert call["args"].keys() == {"city", "days"}

    return tools


LITELLM: Mapping[str, Trial] = {
    "chat_whole": litellm_chat,
    "chat_stream": litellm_stream,
    "tools_required": litellm_tools,
}
LANGCHAIN: Mapping[str, Trial] = {
    "chat_whole": _langchain_chat(responses=False),
    "chat_stream": _langchain_stream(responses=False),
    "tools_required": _langchain_tools(responses=False),
    "responses_text": _langchain_chat(responses=True),
    "responses_stream": _langchain_stream(responses=True),
    "responses_tools": _langchain_tools(responses=True),
}
