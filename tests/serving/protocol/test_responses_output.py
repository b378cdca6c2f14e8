"""The events of a response, checked against the openai client's types and its own accumulation."""

import json
from typing import Any

import pytest
from intaglio.runtime.sequence.logprobs import Candidate, TokenLogprob
from intaglio.runtime.text.tokenizer import load_tokenizer
from intaglio.serving.errors import ApiError, failed
from intaglio.serving.forms import checked
from intaglio.serving.protocol.chat.pieces import Answer, CallArguments, CallBegins, Ended, Piece, Thought
from intaglio.serving.protocol.responses.body import ResponsesBody
from intaglio.serving.protocol.responses.response import ResponseInProgress
from intaglio.tests.serving.artifacts import CHECKPOINTS
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 4,
    "total_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
TOKENIZER = load_tokenizer(CHECKPOINTS / "tiny-qwen2")
TOKEN = TOKENIZER.encode("Hi")[0]
ENTRY = TokenLogprob(TOKEN, TOKENIZER.token_text(TOKEN), -0.5, (Candidate(TOKEN, TOKENIZER.token_text(TOKEN), -0.5),))
LOGPROB = {"token": ENTRY.text, "bytes": list(ENTRY.text.encode()), "logprob": -0.5}


def started(**values: Any) -> ResponseInProgress:
    return ResponseInProgress(checked(ResponsesBody, {"input": "hi"} | values), "tiny", TOKENIZER)


def written(response: ResponseInProgress) -> list[dict[str, Any]]:
    """Return the events of a turn with a thought, an answer and two calls."""
    pieces: list[Piece] = [Thought("Hm"), Thought("."), Answer("Hi", (ENTRY,)), Answer("!", (ENTRY,))]
    for index in (0, 1):
        pieces += [CallBegins(index, f"call_{index}", "sky"), CallArguments(index, '{"city":')]
        pieces.append(CallArguments(index, ' "Seoul"}'))
    return [event for piece in [*pieces, Ended("tool_calls")] for event in response.add(piece)]


def test_every_event_has_the_clients_type_and_its_place() -> None:
    response = started(
        tools=[{"type": "function", "name": "sky"}], metadata={"a": "b"}, text={"format": {"type": "text"}}
    )
    events = [*response.begin(), *written(response), *response.end(USAGE)]
    for index, event in enumerate(events):
        parsed = EVENTS.validate_python(event)
        assert parsed.type == event["type"]
        assert not parsed.model_extra, "a field that the client does not know"
        assert event["sequence_number"] == index
    assert [event["type"].removeprefix("response.") for event in events] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        "completed",
    ]


def test_events_do_not_change_after_they_are_made() -> None:
    response = started()
    events = [*response.begin(), *written(response)]
    before = json.dumps(events)
    response.end(USAGE)
    assert json.dumps(events) == before


def test_the_last_event_has_the_response() -> None:
    response = started(include=["message.output_text.logprobs"], user="me")
    first = response.begin()[0]["response"]
    written(response)
    last = response.end(USAGE)[-1]["response"]
    assert first["id"] == last["id"]
    assert first["output"] == []
    parsed = Response.model_validate(last)
    assert parsed.status == "completed"
    assert parsed.output_text == "Hi!"
    assert [item.type for item in parsed.output] == ["reasoning", "message", "function_call", "function_call"]
    assert {item["status"] for item in last["output"]} == {"completed"}
    assert last["output"][0]["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert last["output"][1]["content"][0]["logprobs"] == [LOGPROB | {"top_logprobs": [LOGPROB]}] * 2
    assert json.loads(last["output"][3]["arguments"]) == {"city": "Seoul"}
    assert last["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 9,
    }


def test_the_output_can_be_sent_back_as_input() -> None:
    response = started()
    written(response)
    last = response.end(USAGE)[-1]["response"]
    plain = Response.model_validate(last).output
    for items in (last["output"], [item.model_dump() for item in plain], [item.to_dict() for item in plain]):
        again = checked(ResponsesBody, {"input": items})
        assert isinstance(again.input, list)
        assert [item.type for item in again.input] == [item["type"] for item in last["output"]]


def test_a_response_says_what_was_requested() -> None:
    choice = {"type": "function", "name": "sky"}
    schema = {"type": "json_schema", "name": "sky", "schema": {"type": "object"}}
    tool = {
        "type": "function",
        "name": "sky",
        "description": "The sky.",
        "parameters": {"type": "object"},
        "strict": True,
    }
    said = started(tools=[tool], tool_choice=choice, text={"format": schema}, temperature=0, metadata={"a": "b"})
    first = said.begin()[0]["response"]
    assert first["tools"] == [tool]
    assert first["tool_choice"] == choice
    assert first["text"] == {"format": schema}
    assert first["temperature"] == 0
    assert first["metadata"] == {"a": "b"}
    assert (first["store"], first["truncation"], first["parallel_tool_calls"]) == (False, "disabled", True)


def test_an_answer_that_is_cut_off_is_incomplete() -> None:
    response = started(max_output_tokens=4)
    response.add(Answer("Hi"))
    response.add(Ended("length"))
    *_, done, last = response.end(USAGE)
    assert done["item"]["status"] == "incomplete"
    assert last["type"] == "response.incomplete"
    assert last["response"]["status"] == "incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["completed_at"] is None


@pytest.mark.parametrize("error", [failed(), ApiError("too late", status=408, code="timeout")])
def test_a_failure_after_the_first_event_is_an_event(error: ApiError) -> None:
    response = started()
    response.add(Answer("Hi"))
    last = response.fail(error)[-1]
    assert EVENTS.validate_python(last).type == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": error.message}
    assert last["response"]["output"][0]["status"] == "incomplete"
