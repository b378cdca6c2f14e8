"""The Responses protocol."""

from typing import Any

import openai
import pytest

from .facts import MESSAGES, SCHEMA, TOKENS, TOOL_PARAMETERS
from .features import Case, feature
from .structured_features import Weather as Answer
from .tools_features import check_weather

RESPONSES = "responses"
GREEDY: dict[str, Any] = {"temperature": 0, "max_output_tokens": TOKENS}
LONG: dict[str, Any] = {"temperature": 0, "max_output_tokens": 110}
INSTRUCTIONS, QUESTION = MESSAGES[0]["content"], MESSAGES[1]["content"]
TOOL: dict[str, Any] = {"type": "function", "name": "weather", "parameters": TOOL_PARAMETERS, "strict": True}
CALLING: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, **LONG}
FORMAT: dict[str, Any] = {"format": {"type": "json_schema", "name": "weather", "schema": SCHEMA, "strict": True}}


def ask(case: Case, **options: Any) -> Any:
    """Return a response, or a stream."""
    given = {"instructions": INSTRUCTIONS, "input": QUESTION, **options}
    return case.client.responses.create(model=case.model, **given)


@feature(RESPONSES, "`input` as text, `instructions`")
def responses_text(case: Case) -> str:
    answer = ask(case, **GREEDY)
    assert answer.output_text == case.facts.chat
    assert answer.usage.input_tokens == case.facts.prompt_tokens
    assert answer.usage.output_tokens == TOKENS
    assert answer.model == case.model
    return "the library's text"


@feature(RESPONSES, "`input` as items of every role")
def responses_items(case: Case) -> str:
    items = [
        {"role": "developer", "content": INSTRUCTIONS},
        {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
    ]
    first = ask(case, instructions=None, input=items, **GREEDY)
    assert first.output_text == case.facts.chat
    again = ask(case, input=[*items, *first.output, {"role": "user", "content": "Why?"}], instructions=None, **GREEDY)
    assert again.usage.input_tokens > first.usage.total_tokens
    return "the library's text"


@feature(RESPONSES, "`stream` with typed events")
def responses_stream(case: Case) -> str:
    events = list(ask(case, stream=True, **GREEDY))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == case.facts.chat
    assert events[0].type == "response.created"
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == case.facts.chat
    return "the library's text"


@feature(RESPONSES, "the helper `responses.stream`")
def responses_stream_helper(case: Case) -> None:
    with case.client.responses.stream(model=case.model, input=QUESTION, text_format=Answer, **LONG) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert {"response.created", "response.output_text.delta", "response.completed"} <= kinds
    assert isinstance(final.output_parsed, Answer)


@feature(RESPONSES, "`max_output_tokens`: status `incomplete`")
def responses_incomplete(case: Case) -> None:
    answer = ask(case, temperature=0, max_output_tokens=3)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[-1].status == "incomplete"


@feature(RESPONSES, "`tools`, `tool_choice`, `function_call_output`")
def responses_tools(case: Case) -> None:
    for choice in ("required", {"type": "function", "name": "weather"}):
        answer = ask(case, **{**CALLING, "tool_choice": choice})
        assert answer.status == "completed"
        *_, call = answer.output
        assert (call.type, call.name, call.status) == ("function_call", "weather", "completed")
        check_weather(call.arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": '{"sky": "rain"}'}
    question = {"role": "user", "content": QUESTION}
    again = ask(case, input=[question, *answer.output, result], **{**CALLING, "tool_choice": "none"})
    assert again.output_text


@feature(RESPONSES, "events of a call's arguments")
def responses_tools_stream(case: Case) -> None:
    events = list(ask(case, stream=True, **CALLING))
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == done[0].arguments
    check_weather(done[0].arguments)
    assert events[-1].response.output[-1].call_id


@feature(RESPONSES, "`text.format`: `json_schema`, `json_object`")
def responses_format(case: Case) -> None:
    answer = ask(case, text=FORMAT, **LONG)
    Answer.model_validate_json(answer.output_text, strict=True)
    answer = ask(case, text={"format": {"type": "json_object"}}, **LONG)
    assert answer.output_text.startswith("{")


@feature(RESPONSES, "the helper `responses.parse`")
def responses_parse(case: Case) -> None:
    answer = case.client.responses.parse(model=case.model, input=QUESTION, text_format=Answer, **LONG)
    assert isinstance(answer.output_parsed, Answer)


@feature(RESPONSES, "`top_logprobs` with `include`")
def responses_logprobs(case: Case) -> str:
    answer = ask(case, include=["message.output_text.logprobs"], top_logprobs=2, **GREEDY)
    entries = answer.output[-1].content[0].logprobs
    assert [entry.token for entry in entries] == [token for token, _, _ in case.facts.logprobs]
    assert [entry.logprob for entry in entries] == pytest.approx([one for _, one, _ in case.facts.logprobs], abs=1e-4)
    assert [[top.token for top in entry.top_logprobs] for entry in entries] == [top for *_, top in case.facts.logprobs]
    return "the library's"


@feature(RESPONSES, "`reasoning.effort`; items and events of thoughts")
def responses_thought(case: Case) -> str | None:
    if case.facts.thought_end is None:
        with pytest.raises(openai.BadRequestError, match="chat template") as refused:
            ask(case, reasoning={"effort": "high"}, **GREEDY)
        assert refused.value.param == "reasoning.effort"
        return "refused for a template without thoughts"
    more = {"extra_body": {"logit_bias": {str(case.facts.thought_end): -100}}}
    answer = ask(case, reasoning={"effort": "high"}, **GREEDY, **more)
    assert [item.type for item in answer.output] == ["reasoning"]
    assert answer.output[0].content[0].text
    assert answer.usage.output_tokens_details.reasoning_tokens == TOKENS
    events = list(ask(case, reasoning={"effort": "high"}, stream=True, **GREEDY, **more))
    deltas = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
    assert "".join(deltas) == answer.output[0].content[0].text
    return None


@feature(RESPONSES, "`previous_response_id`, `store`, `background`, `conversation`, `truncation`")
def responses_refused(case: Case) -> str:
    refused: dict[str, Any] = {
        "previous_response_id": "resp_1",
        "store": True,
        "background": True,
        "conversation": "conv_1",
        "truncation": "auto",
    }
    for name, value in refused.items():
        with pytest.raises(openai.BadRequestError, match="is not supported") as error:
            ask(case, **{name: value})
        assert error.value.param == name
    return "refused by name"
