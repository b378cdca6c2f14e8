"""Completions, embeddings and models."""

from typing import Any

import openai
import pytest

from .facts import PROMPT, TOKENS
from .features import Case, feature

TEXTS = "completions, embeddings, models"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": TOKENS}
ENCODER = "encoder"


def complete(case: Case, **options: Any) -> Any:
    """Return a completion, or a stream."""
    return case.client.completions.create(model=case.model, **{"prompt": PROMPT, **options})


@feature(TEXTS, "completions: `prompt`")
def texts_completion(case: Case) -> str:
    answer = complete(case, **GREEDY)
    assert answer.choices[0].text == case.facts.completion
    assert answer.usage.completion_tokens == TOKENS
    return "the library's text"


@feature(TEXTS, "completions: `stream`")
def texts_stream(case: Case) -> str:
    chunks = list(complete(case, stream=True, **GREEDY))
    assert "".join(chunk.choices[0].text for chunk in chunks) == case.facts.completion
    return "the library's text"


@feature(TEXTS, "completions: several prompts, `n`, `echo`, `logprobs`, `stop`, `seed`")
def texts_options(case: Case) -> None:
    answer = complete(case, prompt=[PROMPT, "A"], n=2, seed=3, temperature=1, max_tokens=4, echo=True, logprobs=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text.startswith(PROMPT) for choice in answer.choices] == [True, True, False, False]
    assert all(choice.logprobs.tokens for choice in answer.choices)
    stop = case.facts.completion[8:14]
    answer = complete(case, stop=stop, **GREEDY)
    assert answer.choices[0].text == case.facts.completion[: case.facts.completion.index(stop)]


@feature(TEXTS, "completions: `suffix`, `best_of`")
def texts_refused(case: Case) -> str:
    for name, value in {"suffix": "end", "best_of": 3}.items():
        with pytest.raises(openai.BadRequestError) as error:
            complete(case, **{name: value})
        assert error.value.param == name
    return "refused by name"


@feature(TEXTS, "embeddings: as base64 (the client's default) and as numbers")
def texts_embeddings(case: Case) -> None:
    given = {"model": ENCODER, "input": ["a text", "another"]}
    packed = case.client.embeddings.create(**given)
    plain = case.client.embeddings.create(**given, encoding_format="float")
    assert [item.index for item in plain.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(value * value for value in other.embedding) == pytest.approx(1, abs=1e-4)
    assert plain.usage.prompt_tokens > 0


@feature(TEXTS, "models: `list`, `retrieve`")
def texts_models(case: Case) -> None:
    names = [model.id for model in case.client.models.list()]
    assert case.model in names
    assert case.client.models.retrieve(case.model).id == case.model
    with pytest.raises(openai.NotFoundError):
        case.client.models.retrieve("nothing")
