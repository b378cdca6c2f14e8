"""Chat completions: text, streams, sampling, log-probabilities, thoughts."""

from typing import Any

import openai
import pytest

from .facts import MESSAGES, TOKENS
from .features import Case, feature

CHAT = "chat completions"
GREEDY: dict[str, Any] = {"temperature": 0, "max_completion_tokens": TOKENS}


def ask(case: Case, **options: Any) -> Any:
    """Return a completion, or a stream."""
    return case.client.chat.completions.create(model=case.model, messages=options.pop("messages", MESSAGES), **options)


def text(completion: Any, choice: int = 0) -> str:
    found: str = completion.choices[choice].message.content
    return found


@feature(CHAT, "`messages`")
def chat_whole(case: Case) -> str:
    answer = ask(case, **GREEDY)
    assert text(answer) == case.facts.chat
    assert answer.object == "chat.completion"
    assert answer.model == case.model
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == case.facts.prompt_tokens
    assert answer.usage.total_tokens == case.facts.prompt_tokens + answer.usage.completion_tokens
    return "the library's text"


@feature(CHAT, "a content of parts; the role `developer`")
def chat_parts(case: Case) -> str:
    parts = [{"role": "developer", "content": [{"type": "text", "text": "You are brief."}]}, MESSAGES[1]]
    assert text(ask(case, messages=parts, **GREEDY)) == case.facts.chat
    return "the library's text"


@feature(CHAT, "`stream`")
def chat_stream(case: Case) -> str:
    chunks = list(ask(case, stream=True, **GREEDY))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == case.facts.chat
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 3
    return "the library's text"


@feature(CHAT, "`stream_options.include_usage`")
def chat_stream_usage(case: Case) -> None:
    *chunks, last = ask(case, stream=True, stream_options={"include_usage": True}, **GREEDY)
    assert last.choices == []
    assert last.usage.completion_tokens == TOKENS
    assert last.usage.prompt_tokens == case.facts.prompt_tokens
    assert all(chunk.usage is None for chunk in chunks)


@feature(CHAT, "the helper `chat.completions.stream`")
def chat_stream_helper(case: Case) -> str:
    stop = case.facts.chat[-4:]  # the helper raises where an answer is cut off
    with case.client.chat.completions.stream(model=case.model, messages=MESSAGES, stop=stop, **GREEDY) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert text(final) == case.facts.chat[: case.facts.chat.index(stop)]
    return "the library's text"


@feature(CHAT, "usage with cached tokens, in a conversation's second turn")
def chat_cached_tokens(case: Case) -> str | None:
    asked = [{"role": "user", "content": "Where is Seoul, and what is there to see in it? " * 8}]
    first = ask(case, messages=asked, **GREEDY)
    answered = [*asked, first.choices[0].message, {"role": "user", "content": "Why?"}]
    usage = ask(case, messages=answered, **GREEDY).usage
    cached = usage.prompt_tokens_details.cached_tokens
    if cached == 0 and case.facts.windows:
        return "0 with sliding windows"
    assert first.usage.prompt_tokens // 2 < cached < usage.prompt_tokens
    return None


@feature(CHAT, "`n`, `seed`")
def chat_choices(case: Case) -> None:
    options: dict[str, Any] = {"n": 3, "seed": 5, "temperature": 1, "max_completion_tokens": TOKENS}
    first, second = ask(case, **options), ask(case, **options)
    texts = [text(first, choice) for choice in range(3)]
    assert texts == [text(second, choice) for choice in range(3)]
    assert len(set(texts)) > 1
    assert [choice.index for choice in first.choices] == [0, 1, 2]


@feature(CHAT, "`stop`")
def chat_stop(case: Case) -> None:
    stop = case.facts.chat[8:14]
    for given in (stop, [stop, "never"]):
        answer = ask(case, stop=given, **GREEDY)
        assert text(answer) == case.facts.chat[: case.facts.chat.index(stop)]
        assert answer.choices[0].finish_reason == "stop"


@feature(CHAT, "`max_completion_tokens`, `max_tokens`")
def chat_length(case: Case) -> None:
    for name in ("max_completion_tokens", "max_tokens"):
        answer = ask(case, temperature=0, **{name: 3})
        assert answer.usage.completion_tokens == 3
        assert answer.choices[0].finish_reason == "length"


@feature(CHAT, "`temperature`, `top_p`")
def chat_sampling(case: Case) -> None:
    nucleus = ask(case, temperature=2, top_p=1e-6, seed=1, max_completion_tokens=TOKENS)
    assert text(nucleus) == case.facts.chat  # the nucleus of one token is the greedy choice
    assert text(ask(case, temperature=2, seed=1, max_completion_tokens=TOKENS)) != case.facts.chat


@feature(CHAT, "`presence_penalty`, `frequency_penalty`")
def chat_penalties(case: Case) -> None:
    plain = text(ask(case, temperature=0, max_completion_tokens=40))
    for name in ("presence_penalty", "frequency_penalty"):
        assert text(ask(case, temperature=0, max_completion_tokens=40, **{name: 2})) != plain


@feature(CHAT, "`logit_bias`")
def chat_bias(case: Case) -> None:
    answer = ask(case, logit_bias={"100": 100}, logprobs=True, **GREEDY)
    assert len({entry.token for entry in answer.choices[0].logprobs.content}) == 1


@feature(CHAT, "`logprobs`, `top_logprobs`")
def chat_logprobs(case: Case) -> str:
    for stream in (False, True):
        answer = ask(case, stream=stream, logprobs=True, top_logprobs=2, **GREEDY)
        lists = [chunk.choices[0].logprobs for chunk in answer] if stream else [answer.choices[0].logprobs]
        entries = [entry for one in lists if one is not None for entry in one.content or ()]
        assert [entry.token for entry in entries] == [token for token, _, _ in case.facts.logprobs]
        assert [entry.logprob for entry in entries] == pytest.approx(
            [one for _, one, _ in case.facts.logprobs], abs=1e-4
        )
        assert [[top.token for top in entry.top_logprobs] for entry in entries] == [
            top for *_, top in case.facts.logprobs
        ]
        assert bytes(byte for entry in entries for byte in entry.bytes or ()).decode() == case.facts.chat
    return "the library's"


@feature(CHAT, "`reasoning_content`; `reasoning_effort`, `chat_template_kwargs`")
def chat_thought(case: Case) -> str | None:
    thinking: list[dict[str, Any]] = [
        {"reasoning_effort": "high"},
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}},
    ]
    if case.facts.thought_end is None:
        for options in thinking:
            with pytest.raises(openai.BadRequestError, match="the model's chat template"):
                ask(case, **options, **GREEDY)
        return "refused for a template without thoughts"
    for options in thinking:
        answer = ask(case, logit_bias={str(case.facts.thought_end): -100}, **options, **GREEDY)
        assert answer.choices[0].message.reasoning_content
        assert not answer.choices[0].message.content
        assert answer.usage.completion_tokens_details.reasoning_tokens == TOKENS
        chunks = list(ask(case, stream=True, logit_bias={str(case.facts.thought_end): -100}, **options, **GREEDY))
        deltas = [getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks]
        assert "".join(deltas) == answer.choices[0].message.reasoning_content
    return None
