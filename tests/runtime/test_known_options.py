"""Every public entry point refuses an option that does not exist, and names the nearest one that does."""

from collections.abc import Callable
from typing import Any

import intaglio
import pytest
from intaglio import runtime
from intaglio.errors import UsageError
from intaglio.known_options import option_names
from intaglio.runtime.chat.chat import ChatOptions
from intaglio.runtime.sequence.options import Options
from intaglio.runtime.sequence.request import RequestBuilder
from intaglio.tests.runtime.generation.scripted import Scripted

GENERATOR = runtime.TextGenerator
MISSPELT: list[tuple[Callable[..., Any], str, str]] = [
    (intaglio.load, "kv_cach", "load has no option 'kv_cach'; did you mean 'kv_cache'?"),
    (intaglio.export, "precison", "export has no option 'precison'; did you mean 'precision'?"),
    (intaglio.quantize, "tagret", "quantize has no option 'tagret'; did you mean 'target'?"),
    (intaglio.check, "thread", "check has no option 'thread'; did you mean 'threads'?"),
    (intaglio.CheckOptions, "window_size", "CheckOptions has no option 'window_size'; did you mean 'windows'?"),
    (intaglio.QuantizeOptions, "blocksize", "QuantizeOptions has no option 'blocksize'; did you mean 'block_size'?"),
    (GENERATOR.generate, "max_tokens", "generate has no option 'max_tokens'; did you mean 'max_new_tokens'?"),
    (GENERATOR.generate, "batchsize", "generate has no option 'batchsize'; did you mean 'batch_size'?"),
    (GENERATOR.stream, "topk", "stream has no option 'topk'; did you mean 'top_k'?"),
    (GENERATOR.chat, "temprature", "chat has no option 'temprature'; did you mean 'temperature'?"),
    (GENERATOR.stream_chat, "tool", "stream_chat has no option 'tool'; did you mean 'tools'?"),
    (GENERATOR.score, "strides", "score has no option 'strides'; did you mean 'stride'?"),
    (GENERATOR.scheduler, "slot", "scheduler has no option 'slot'; did you mean 'slots'?"),
    (GENERATOR.conversation, "x", "conversation has no option 'x'; it takes none"),
    (runtime.Conversation.generate, "max_token", "generate has no option 'max_token'; did you mean 'max_new_tokens'?"),
    (runtime.Conversation.stream, "sed", "stream has no option 'sed'; did you mean 'seed'?"),
    (runtime.Scheduler.submit, "seeds", "submit has no option 'seeds'; did you mean 'seed'?"),
    (
        runtime.SequenceClassifier.__call__,
        "truncate",
        "SequenceClassifier has no option 'truncate'; did you mean 'truncation'?",
    ),
    (
        runtime.TokenClassifier.__call__,
        "aggregat",
        "TokenClassifier has no option 'aggregat'; did you mean 'aggregate'?",
    ),
    (runtime.QuestionAnswerer.__call__, "topk", "QuestionAnswerer has no option 'topk'; did you mean 'top_k'?"),
    (runtime.Embedder.__call__, "pool", "Embedder has no option 'pool'; did you mean 'pooling'?"),
]


@pytest.mark.parametrize(("call", "option", "message"), MISSPELT)
def test_an_option_that_does_not_exist(call: Callable[..., Any], option: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call(**{option: 4})
    assert str(caught.value) == message


def test_all_options_are_named_where_none_is_near() -> None:
    options = "slots, max_length, prefill_tokens, kept_prompts, prompt_cache, kept_outputs"
    with pytest.raises(UsageError, match=rf"^scheduler has no option 'do_sample'; its options are: {options}$"):
        GENERATOR.scheduler(object(), do_sample=True)  # type: ignore[call-arg, arg-type]


def test_a_tool_loop_checks_its_options_before_the_model_runs() -> None:
    model = Scripted("tiny-qwen2", [])
    with pytest.raises(UsageError, match=r"^run_tools has no option 'max_round'; did you mean 'max_rounds'\?$"):
        runtime.run_tools(
            GENERATOR.chat.__get__(model),
            [{"role": "user", "content": "hi"}],
            [],
            max_round=1,
        )
    assert model.prompts == []


def test_a_turn_on_another_model_checks_its_options() -> None:
    with pytest.raises(UsageError, match=r"^chat has no option 'max_tokens'; did you mean 'max_new_tokens'\?$"):
        Scripted("tiny-qwen2", ["a"]).chat([{"role": "user", "content": "hi"}], max_tokens=4)


def test_the_options_of_a_request_are_those_of_the_registry() -> None:
    assert option_names(RequestBuilder.request) == tuple(Options.__annotations__)
    assert set(Options.__annotations__) < set(ChatOptions.__annotations__)
