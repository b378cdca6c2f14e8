"""The page with the real server and the trained tiny checkpoints."""

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from intaglio.runtime.generation.scheduler import Event, Scheduler
from intaglio.tests.serving.live import live_server
from intaglio.tests.serving.page.hands import OpenPage, ask, eventually, expect, last, send

pytestmark = pytest.mark.slow


def stored(page: Any) -> list[dict[str, Any]]:
    """Return the messages of the conversation that the page shows, as it keeps them."""
    name = page.url.partition("#")[2]
    value = json.loads(page.evaluate("(name) => localStorage.getItem(`intaglio.conversation.${name}`)", name))
    nodes: list[dict[str, Any]] = value["nodes"]
    return nodes


def set_up(page: Any, model: str, **settings: str) -> None:
    """Choose a model, and set fields of the settings by their names."""
    page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_role("button", name="Settings", exact=True).click()
    for name, value in settings.items():
        page.locator(f"#settings-form [name={name}]").fill(value)


def test_a_conversation_has_the_answers_of_the_server(server: str, http: httpx.Client, open_page: OpenPage) -> None:
    page = open_page(server)
    set_up(page, "exaone4", temperature="0", max_completion_tokens="24", system="Be brief.")
    messages = [{"role": "system", "content": "Be brief."}]
    for question in ("The history of the city", "And then?"):
        ask(page, question)
        messages.append({"role": "user", "content": question})
        body = {"model": "exaone4", "messages": messages, "temperature": 0, "max_completion_tokens": 24}
        answer = http.post("/v1/chat/completions", json=body).json()
        content = answer["choices"][0]["message"]["content"]
        messages.append({"role": "assistant", "content": content})
        shown = stored(page)[-1]
        assert shown["content"] == content
        assert shown["facts"]["completion"] == answer["usage"]["completion_tokens"]
        assert shown["facts"]["prompt"] == answer["usage"]["prompt_tokens"]
    page.reload()
    expect(page.locator(".turn")).to_have_count(4)


def test_what_the_server_refuses_is_shown(server: str, open_page: OpenPage) -> None:
    page = open_page(server, expects_errors=True)
    set_up(page, "qwen2", max_completion_tokens="999999")
    note = ask(page, "Hello").locator(".note.error")
    expect(note).to_contain_text("999,999")


def test_a_stopped_answer_frees_its_slot(
    artifacts: dict[str, Path], open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model takes only the steps that the test allows, so that the answer is certainly stopped in its middle."""
    steps = threading.Semaphore(0)
    original = Scheduler.step

    def step(scheduler: Scheduler) -> list[Event]:
        steps.acquire()
        return original(scheduler)

    monkeypatch.setattr(Scheduler, "step", step)
    with live_server({"qwen2": artifacts["qwen2"]}) as address, httpx.Client(base_url=address) as client:

        def metric(name: str) -> float:
            lines = client.get("/metrics").text.splitlines()
            return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"vllm:{name}{{"))

        page = open_page(address)
        send(page, "Hello")
        steps.release(20)
        expect(last(page).locator(".answer-text")).not_to_be_empty()
        assert metric("num_requests_running") == 1
        page.keyboard.press("Escape")
        expect(last(page).locator(".note")).to_have_text("You stopped this answer.")
        steps.release(100_000)
        eventually(page, lambda: metric("num_requests_running") == 0)
        assert metric("num_requests_waiting") == 0
        assert metric("generation_tokens_total") <= 21
