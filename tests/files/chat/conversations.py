"""Conversations, tools and settings that the tests of chat templates render."""

from pathlib import Path
from typing import Any

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
FAMILIES = ["tiny-qwen2", "tiny-exaone4"]

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The weather of <a> city & its "surroundings" — 날씨',
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "도시"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock", "description": "", "parameters": {}}}


def called(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "You are brief."}
ASKED = {"role": "user", "content": "서울 날씨는? 🌧️ <b>&amp;</b>"}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one message": [{"role": "user", "content": "hi"}],
    "Korean and emoji": [
        SYSTEM,
        ASKED,
        {"role": "assistant", "content": "비가 와요 ☔\n"},
        {"role": "user", "content": "👨‍👩‍👧‍👦"},
    ],
    "several turns": [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": " 2\n\n"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": ""},
    ],
    "a second system message": [
        SYSTEM,
        {"role": "user", "content": "x"},
        {"role": "system", "content": "Now at length."},
    ],
    "a call and its result": [
        SYSTEM,
        ASKED,
        {"role": "assistant", "content": "", "tool_calls": [called("get_weather", city="서울", days=2)]},
        {"role": "tool", "content": '{"sky": "비"}'},
    ],
    "several calls": [
        ASKED,
        {
            "role": "assistant",
            "content": "둘 다 볼게요.",
            "tool_calls": [called("get_weather", city="A"), called("clock")],
        },
        {"role": "tool", "content": "rain"},
        {"role": "tool", "content": "12:00"},
        {"role": "assistant", "content": "Rain at noon."},
        {"role": "user", "content": "thanks"},
    ],
    "a call without content": [
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": [called("clock")]},
        {"role": "tool", "content": "12:00"},
    ],
    "arguments as text": [
        ASKED,
        {"role": "assistant", "content": "", "tool_calls": [{"name": "clock", "arguments": '{"zone": "<KST>"}'}]},
        {"role": "tool", "content": "12:00"},
    ],
    "thoughts in the text": [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "<think>\nadd\n</think>\n\n2"},
        {"role": "user", "content": "and 2+2"},
        {"role": "assistant", "content": "<think>\nagain\n</think>\n\n4"},
    ],
    "thoughts beside the text": [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "2", "reasoning_content": "add"},
        {"role": "user", "content": "and 2+2"},
        {"role": "assistant", "content": "4", "thinking": "again"},
    ],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prompt": {"add_generation_prompt": True},
    "thinking": {"add_generation_prompt": True, "enable_thinking": True},
    "not thinking": {"add_generation_prompt": True, "enable_thinking": False},
    "tools": {"add_generation_prompt": True, "tools": [WEATHER, CLOCK]},
    "tools, thinking": {"add_generation_prompt": True, "tools": [WEATHER], "enable_thinking": True},
    "no tools": {"add_generation_prompt": True, "tools": []},
}
