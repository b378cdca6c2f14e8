"""Conversations in the page, with a server whose answers are written here."""

from typing import Any

import pytest
from intaglio.tests.serving.page.hands import OpenPage, ask, eventually, expect, last, send
from intaglio.tests.serving.page.scripted import HOLD, Script, call, text

pytestmark = pytest.mark.slow

TOOLS = '[{"name": "get_weather", "parameters": {"type": "object"}}]'


def test_an_answer_is_streamed_with_its_figures(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [[*text("A **bold", "** answer"), HOLD, *text(" with `code`.")]]
    page = open_page(scripted)
    send(page, "Hello")
    expect(last(page).locator(".prose strong")).to_have_text("bold")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    script.go.set()
    expect(last(page).locator(".prose code")).to_have_text("code")
    figures = last(page).get_by_label("Figures of this answer")
    for figure in ("tokens/s", "40 tokens", "first after", "prompt 120, 96 cached"):
        expect(figures).to_contain_text(figure)
    assert script.bodies == [
        {
            "model": "scripted",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]


def test_a_thought_is_shown_while_it_is_thought_and_folded_afterwards(
    script: Script, scripted: str, open_page: OpenPage
) -> None:
    script.answers = [[{"reasoning_content": "First this. "}, HOLD, {"reasoning_content": "Then that."}, *text("So.")]]
    page = open_page(scripted)
    page.get_by_role("button", name="Think before the answer").click()
    send(page, "Why?")
    thought = last(page).locator(".thought")
    expect(thought).to_have_attribute("open", "")
    expect(thought.locator("summary")).to_have_text("Thinking…")
    expect(thought.locator(".thought-text")).to_have_text("First this.")
    script.go.set()
    expect(thought).not_to_have_attribute("open", "")
    expect(thought.locator("summary")).to_contain_text("Thought for ")
    thought.locator("summary").click()
    expect(thought.locator(".thought-text")).to_have_text("First this. Then that.")
    expect(last(page).locator(".answer-text")).to_have_text("So.")
    assert script.bodies[0]["chat_template_kwargs"] == {"enable_thinking": True}


def test_a_thought_that_the_reader_has_closed_stays_closed(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [[{"reasoning_content": "First. "}, HOLD, {"reasoning_content": "Second."}, HOLD, *text("So.")]]
    page = open_page(scripted)
    send(page, "Why?")
    thought = last(page).locator(".thought")
    thought.locator("summary").click()
    script.go.set()
    expect(last(page)).to_have_attribute("aria-busy", "false")
    expect(thought).not_to_have_attribute("open", "")


def test_the_reader_gives_the_results_of_tool_calls(script: Script, scripted: str, open_page: OpenPage) -> None:
    calls = [*call("get_weather", {"city": "Seoul"}), *call("get_time", {"zone": "KST"}, 1)]
    script.answers = [[{"reasoning_content": "A tool."}, *text("I look."), *calls], text("It is 4 °C.")]
    page = open_page(scripted)
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_label("Functions, as JSON").fill(TOOLS)
    page.get_by_label("The model calls").select_option("required")
    turn = ask(page, "The weather?")
    cards = page.locator(".call")
    expect(cards).to_have_count(2)
    expect(cards.first.locator("pre").first).to_have_text('{\n  "city": "Seoul"\n}')
    turn.get_by_label("Result of get_weather").fill('{"celsius":4}')
    turn.get_by_label("Result of get_time").fill("noon")
    turn.get_by_role("button", name="Send results").click()
    expect(last(page).locator(".answer-text")).to_have_text("It is 4 °C.")
    expect(cards.first.locator(".call-result")).to_have_text('{\n  "celsius": 4\n}')
    expect(page.get_by_role("button", name="Send results")).to_be_hidden()
    assert script.bodies[0]["tools"] == [
        {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    ]
    assert script.bodies[0]["tool_choice"] == "required"
    first, turn_of_model, *results = script.bodies[1]["messages"]
    assert first == {"role": "user", "content": "The weather?"}
    assert turn_of_model["reasoning_content"] == "A tool."
    assert [one["function"] for one in turn_of_model["tool_calls"]] == [
        {"name": "get_weather", "arguments": '{"city": "Seoul"}'},
        {"name": "get_time", "arguments": '{"zone": "KST"}'},
    ]
    assert results == [
        {"role": "tool", "content": '{"celsius":4}', "tool_call_id": "call_0"},
        {"role": "tool", "content": "noon", "tool_call_id": "call_1"},
    ]


@pytest.mark.parametrize("way", ["button", "key"])
def test_an_answer_is_stopped_in_the_middle(script: Script, scripted: str, open_page: OpenPage, way: str) -> None:
    script.answers = [[*text("Once upon"), HOLD, *text(" a time")], text("again")]
    page = open_page(scripted)
    send(page, "A story")
    expect(last(page).locator(".answer-text")).to_have_text("Once upon")
    assert script.open == 1
    if way == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(last(page).locator(".note")).to_have_text("You stopped this answer.")
    eventually(page, lambda: script.open == 0)
    ask(page, "Go on")
    assert script.bodies[1]["messages"][1] == {"role": "assistant", "content": "Once upon"}


def test_a_call_that_is_cut_off_cannot_be_answered(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [[*call("get_weather", {"city": "Seoul"})[:2], HOLD]]
    page = open_page(scripted)
    send(page, "The weather?")
    expect(last(page).locator(".call-name")).to_have_text("get_weather")
    page.keyboard.press("Escape")
    expect(last(page).locator(".tool-calls")).to_be_hidden()


def test_another_answer_is_a_branch(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [text("one"), text("two"), text("more")]
    page = open_page(scripted)
    ask(page, "Say something")
    last(page).get_by_role("button", name="Another answer").click()
    expect(last(page).locator(".answer-text")).to_have_text("two")
    expect(last(page).locator(".position")).to_have_text("2 / 2")
    last(page).get_by_role("button", name="Show the version before").click()
    expect(last(page).locator(".answer-text")).to_have_text("one")
    ask(page, "And more")
    assert [message["content"] for message in script.bodies[2]["messages"]] == ["Say something", "one", "And more"]


def test_a_message_is_edited_and_sent_again(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [text("one"), text("two"), text("three")]
    page = open_page(scripted)
    ask(page, "First")
    ask(page, "Second")
    page.locator(".turn.user").last.hover()
    page.locator(".turn.user").last.get_by_role("button", name="Edit").click()
    page.get_by_label("Your message").fill("Changed")
    page.get_by_label("Your message").press("Enter")
    expect(last(page).locator(".answer-text")).to_have_text("three")
    expect(page.locator(".turn")).to_have_count(4)
    assert [message["content"] for message in script.bodies[2]["messages"]] == ["First", "one", "Changed"]
    page.locator(".turn.user").last.get_by_role("button", name="Show the version before").click()
    expect(last(page).locator(".answer-text")).to_have_text("two")


def test_an_error_in_the_middle_keeps_what_was_there(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [[*text("So far"), {"error": {"message": "the server failed on this request"}}], text("better")]
    page = open_page(scripted)
    turn = ask(page, "Hello")
    expect(turn.locator(".answer-text")).to_have_text("So far")
    expect(turn.locator(".note.error")).to_have_text("the server failed on this request")
    turn.get_by_role("button", name="Another answer").click()
    expect(last(page).locator(".answer-text")).to_have_text("better")


def test_a_refusal_of_the_server_is_shown(script: Script, scripted: str, open_page: OpenPage) -> None:
    page = open_page(scripted, expects_errors=True)
    script.status = 429
    turn = ask(page, "Hello")
    expect(turn.locator(".note.error")).to_have_text("the queue is full; try again later")


def test_the_page_says_when_the_server_does_not_answer(script: Script, scripted: str, open_page: OpenPage) -> None:
    page = open_page(scripted, expects_errors=True)
    page.route("**/v1/chat/completions", lambda route: route.abort())
    expect(ask(page, "Hello").locator(".note.error")).to_have_text("the server does not answer")
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The models cannot be listed: the server does not answer.")
    page.unroute("**/v1/models")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("scripted")


def test_the_view_stays_where_the_reader_has_scrolled(script: Script, scripted: str, open_page: OpenPage) -> None:
    lines = text(*(f"line {number}\n\n" for number in range(100)))
    script.answers = [[*lines, HOLD, *lines, HOLD, *text("the end")]]
    page = open_page(scripted)
    send(page, "Many lines")
    expect(last(page)).to_contain_text("line 99")
    scroller = page.locator("#scroller")

    def distance() -> float:
        found: float = scroller.evaluate("box => box.scrollHeight - box.scrollTop - box.clientHeight")
        return found

    eventually(page, lambda: distance() < 2)
    scroller.evaluate("box => { box.scrollTop = 500; }")
    expect(page.get_by_role("button", name="Latest")).to_be_visible()
    script.go.set()
    expect(last(page)).to_contain_text("the end")
    expect(last(page)).to_have_attribute("aria-busy", "false")
    assert scroller.evaluate("box => box.scrollTop") == 500
    page.get_by_role("button", name="Latest").click()
    assert distance() < 2


def test_settings_become_parameters(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [text("{}"), text("plain")]
    page = open_page(scripted)
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature", exact=True).fill("0.3")
    page.get_by_label("Top-p, from few to all tokens").fill("0.9")
    page.get_by_label("Max tokens").fill("99")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Stop at").fill("END\n\\n\\n")
    page.get_by_label("JSON schema").fill('{"type": "object"}')
    ask(page, "Hello")
    body = script.bodies[0]
    assert {name: body[name] for name in ("temperature", "top_p", "max_completion_tokens", "seed", "stop")} == {
        "temperature": 0.3,
        "top_p": 0.9,
        "max_completion_tokens": 99,
        "seed": 7,
        "stop": ["END", "\n\n"],
    }
    schema: dict[str, Any] = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    page.get_by_role("button", name="Reset all").click()
    ask(page, "Again")
    assert set(script.bodies[1]) == {"model", "messages", "stream", "stream_options", "chat_template_kwargs"}


def test_tools_that_are_not_json_are_told(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [text("yes")]
    page = open_page(scripted)
    page.get_by_role("button", name="Settings", exact=True).click()
    field = page.get_by_label("Functions, as JSON")
    field.fill(TOOLS)
    field.fill(TOOLS[:-3])
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#tools-problem")).to_contain_text("The last correct text is used.")
    field.fill('[{"description": "without a name"}]')
    expect(page.locator("#tools-problem")).to_contain_text("every tool needs a name")
    ask(page, "Hello")
    assert script.bodies[0]["tools"][0]["function"]["name"] == "get_weather"
    expect(field).to_have_value('[{"description": "without a name"}]')


def test_the_card_shows_the_verdict(script: Script, scripted: str, open_page: OpenPage) -> None:
    page = open_page(scripted)
    page.get_by_role("button", name="About scripted: faithful").click()
    card = page.get_by_label("About this model")
    for fact in ("faithful", "exaone4", "int4", "32,768 tokens", "example/scripted-1.2b", "think first, call tools"):
        expect(card).to_contain_text(fact)
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()


@pytest.mark.parametrize("verdict", ["drifted", "broken", "not checked"])
def test_every_verdict_has_its_mark(script: Script, scripted: str, open_page: OpenPage, verdict: str) -> None:
    script.models[0]["parity"] = {"verdict": verdict}
    page = open_page(scripted)
    expect(page.get_by_role("button", name=f"About scripted: {verdict}")).to_have_text(verdict)
