"""The page with the real server and the trained tiny checkpoints."""

import hashlib
import json
import re
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from intaglio.artifact import FileEntry, Task, read_manifest
from intaglio.runtime.generation.events import Event
from intaglio.runtime.generation.scheduler import Scheduler
from intaglio.tests.runtime.fakes import HIDDEN, VOCAB, head, language_model, rewrite_manifest
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


def test_a_thought_and_a_tool_call_of_a_model(server: str, open_page: OpenPage) -> None:
    """The tiny model is no thinker; the grammar of a required call makes it call."""
    page = open_page(server)
    tool = {"name": "get_weather", "parameters": {"type": "object", "properties": {"warm": {"type": "boolean"}}}}
    tool["parameters"] |= {"required": ["warm"], "additionalProperties": False}  # type: ignore[operator]
    set_up(page, "exaone4", temperature="0", max_completion_tokens="120", tools=json.dumps([tool]))
    page.get_by_label("The model calls").select_option("required")
    turn = ask(page, "The weather?")
    calls = stored(page)[-1]["tool_calls"]
    expect(turn.locator(".call-name")).to_have_text(["get_weather"] * len(calls))
    for index, call in enumerate(calls):
        assert isinstance(json.loads(call["function"]["arguments"])["warm"], bool)
        page.get_by_label("Result of get_weather").nth(index).fill("9 °C")
    page.get_by_label("The model calls").select_option("none")
    page.get_by_role("button", name="Think before the answer").click()
    page.get_by_label("Temperature", exact=True).fill("1.8")  # at 0 it thinks nothing
    page.get_by_label("Seed").fill("1")
    page.get_by_role("button", name=re.compile("Send results?")).click()
    expect(page.locator(".turn.model")).to_have_count(2)
    expect(last(page)).to_have_attribute("aria-busy", "false")
    answer = stored(page)[-1]
    assert answer.get("reasoning_content"), answer
    expect(last(page).locator(".thought summary")).to_contain_text("Thought for")
    expect(last(page).locator(".note.error")).to_have_count(0)


def without_template(artifact: Path) -> Path:
    """Remove the chat template of an artifact; return its folder."""
    path = artifact / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["chat_template"]
    data = json.dumps(settings).encode()
    path.write_bytes(data)
    entry = FileEntry(hashlib.sha256(data).hexdigest(), len(data))
    return rewrite_manifest(artifact, files=read_manifest(artifact).files | {path.name: entry})


def run_task(page: Any, model: str, **texts: str) -> Any:
    """Choose a model for another task than chat, and try it; return the answer's element."""
    page.get_by_label("Model", exact=True).select_option(model)
    for label, content in texts.items():
        page.locator("#task").get_by_label(label, exact=False).fill(content)
    page.get_by_role("button", name="Run").click()
    output = page.locator(".task-output")
    expect(output).not_to_be_empty()
    expect(output.locator(".problem")).to_have_count(0)
    return output


def test_every_other_task_has_a_form(tmp_path: Path, open_page: OpenPage) -> None:
    table = np.random.default_rng(0).normal(size=(VOCAB, 2))
    wide = np.random.default_rng(1).normal(size=(VOCAB, HIDDEN))
    labelled: tuple[Task, ...] = ("text-classification", "token-classification")
    artifacts: dict[str, Path] = {task: head(tmp_path / task, task, table, labels=("bad", "good")) for task in labelled}
    artifacts["question-answering"] = head(tmp_path / "answer", "question-answering", table)
    artifacts["feature-extraction"] = head(tmp_path / "embed", "feature-extraction", wide)
    artifacts["without-chat"] = without_template(language_model(tmp_path / "lm"))
    with live_server(artifacts) as address:
        page = open_page(address, expects_errors=True)
        classes = run_task(page, "text-classification", Text="a moving film")
        shown = classes.locator("tr").evaluate_all("rows => rows.map((row) => row.innerText.split(/\\s+/))")
        body = {"model": "text-classification", "input": "a moving film"}
        probs = httpx.post(f"{address}/v1/classify", json=body).json()["data"][0]["probs"]
        ordered = sorted(zip(("bad", "good"), probs, strict=True), key=lambda pair: -pair[1])
        assert [row[0] for row in shown] == [label for label, _ in ordered]
        assert [float(row[-1]) for row in shown] == pytest.approx([prob for _, prob in ordered], rel=1e-2)

        tagged = run_task(page, "token-classification", Text="Marie 🙂 Curie in Paris")
        assert (
            tagged.locator(".marked").evaluate(
                "shown => { for (const tag of shown.querySelectorAll('.tag')) tag.remove(); return shown.innerText; }"
            )
            == "Marie 🙂 Curie in Paris"
        )

        answer = run_task(page, "question-answering", Question="Where?", Text="It was 🙂 in Paris.")
        marked = answer.locator("mark").inner_text() if answer.locator("mark").count() else ""
        assert marked == (answer.locator(".answer").inner_text() if answer.locator(".answer").count() else "")

        compared = run_task(page, "feature-extraction", Texts="one text\nanother text\none text")
        assert compared.locator("td.figure").all_inner_texts()[0::4] == ["1.00"] * 3
        assert compared.locator("td.figure").nth(2).inner_text() == "1.00"

        continued = run_task(page, "without-chat", Text="The history")
        assert continued.locator("mark").inner_text() != ""
        page.locator("#task textarea").fill("word " * 2000)
        page.get_by_role("button", name="Run").click()
        expect(page.locator(".task-output .problem")).to_contain_text("512")
