"""The requests that all clients send, and what the library answers to them in the test's own process."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from intaglio import load

MESSAGES: list[Any] = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "Where is Seoul?"},
]
PROMPT = "The city of"
TOKENS = 12
TOOL_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Seoul", "Busan"]}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Seoul", "Busan"]}, "hot": {"type": "boolean"}},
    "required": ["city", "hot"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Facts:
    """What a model answers, greedily and with ``TOKENS`` new tokens.

    Attributes:
        chat: the answer to ``MESSAGES``.
        prompt_tokens: of the rendered conversation.
        logprobs: of the answer's tokens: text, log-probability and the two likeliest tokens of each.
        completion: the continuation of ``PROMPT``.
        windows: some layers see only the last tokens.
        thought_end: the id of the token that ends a thought; None for a model whose template opens none.
    """

    chat: str
    prompt_tokens: int
    logprobs: list[tuple[str, float, list[str]]]
    completion: str
    windows: bool
    thought_end: int | None

    def as_json(self) -> dict[str, Any]:
        """Return the facts and the requests, for programs in other languages."""
        requests = {"messages": MESSAGES, "prompt": PROMPT, "tokens": TOKENS}
        return {**asdict(self), **requests, "toolParameters": TOOL_PARAMETERS, "schema": SCHEMA}


def facts_of(artifact: Path) -> Facts:
    """Return what the library says of a text-generation model."""
    with load(artifact, task="text-generation", threads=1) as lm:
        assert lm.tokenizer is not None
        reply = lm.chat(MESSAGES, temperature=0.0, max_new_tokens=TOKENS, logprobs=2)
        assert reply.generation is not None
        assert reply.generation.logprobs is not None
        thinks = lm.chat_format.reads("enable_thinking", with_tools=False)
        return Facts(
            chat=reply.text,
            prompt_tokens=len(reply.generation.prompt_token_ids),
            logprobs=[(one.text, one.logprob, [top.text for top in one.top]) for one in reply.generation.logprobs],
            completion=lm.generate(PROMPT, temperature=0.0, max_new_tokens=TOKENS).text,
            windows=any(lm.manifest.model.layer_windows),
            thought_end=lm.tokenizer.encode("</think>")[0] if thinks else None,
        )
