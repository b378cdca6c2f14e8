"""What stays in the browser: conversations, settings, the key and the colors."""

import json
from pathlib import Path
from typing import Any

import pytest
from intaglio.tests.serving.page.hands import OpenPage, ask, eventually, expect, last, send
from intaglio.tests.serving.page.scripted import HOLD, Script, call, text

pytestmark = pytest.mark.slow


def test_a_conversation_is_there_again_after_reloading(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [
        [{"reasoning_content": "Hm."}, *text("I look."), *call("get_time", {})],
        [*text("It is ", "noon.")],
        text("You are welcome."),
    ]
    page = open_page(scripted)
    ask(page, "The time?")
    page.get_by_label("Result of get_time").fill("12:00")
    page.get_by_role("button", name="Send result").click()
    expect(last(page).locator(".answer-text")).to_have_text("It is noon.")
    expect(last(page)).to_have_attribute("aria-busy", "false")
    shown = page.locator("#turns").inner_text()
    page.reload()
    expect(last(page).locator(".answer-text")).to_have_text("It is noon.")
    assert page.locator("#turns").inner_text() == shown
    assert page.title() == "The time? · intaglio"
    ask(page, "Thanks")
    roles = [message["role"] for message in script.bodies[2]["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


def test_an_answer_that_reloading_interrupts_is_kept(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [[*text("So far"), HOLD]]
    page = open_page(scripted)
    send(page, "Hello")
    expect(last(page).locator(".answer-text")).to_have_text("So far")
    page.reload()
    eventually(page, lambda: script.open == 0)
    expect(last(page).locator(".answer-text")).to_have_text("So far")
    expect(last(page).locator(".note")).to_have_text("This answer was interrupted.")


def test_several_conversations(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [text("red"), text("blue")]
    page = open_page(scripted)
    kept = page.get_by_label("Kept conversations")
    ask(page, "About red")
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    ask(page, "About blue")
    assert len(script.bodies[1]["messages"]) == 1
    expect(kept.locator(".entry")).to_have_text(["About blue", "About red"])
    kept.get_by_role("button", name="About red", exact=True).click()
    expect(last(page).locator(".answer-text")).to_have_text("red")
    page.go_back()
    expect(last(page).locator(".answer-text")).to_have_text("blue")
    page.get_by_role("button", name="Delete “About blue”").click()
    expect(kept.locator(".entry")).to_have_text(["About red"])
    page.get_by_role("button", name="Undo").click()
    expect(kept.locator(".entry")).to_have_text(["About blue", "About red"])


def test_an_answer_to_a_deleted_conversation_does_not_bring_it_back(
    script: Script, scripted: str, open_page: OpenPage
) -> None:
    script.answers = [[*text("So far"), HOLD]]
    page = open_page(scripted)
    send(page, "Hello")
    expect(last(page).locator(".answer-text")).to_have_text("So far")
    page.get_by_role("button", name="Delete “Hello”").click()
    eventually(page, lambda: script.open == 0)
    expect(page.get_by_label("Kept conversations").locator(".entry")).to_have_count(0)
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_label("Kept conversations").locator(".entry")).to_have_count(0)


def test_conversations_are_exported_and_imported(
    script: Script, scripted: str, open_page: OpenPage, tmp_path: Path
) -> None:
    script.answers = [text("red"), text("crimson")]
    page = open_page(scripted)
    ask(page, "About red")
    last(page).get_by_role("button", name="Another answer").click()
    expect(last(page).locator(".answer-text")).to_have_text("crimson")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    path = tmp_path / "conversations.json"
    download.value.save_as(path)
    other = open_page(scripted)
    expect(other.get_by_label("Kept conversations").locator(".entry")).to_have_count(0)
    other.locator("#import-file").set_input_files(path)
    expect(other.get_by_text("1 conversation imported.")).to_be_visible()
    other.get_by_role("button", name="About red", exact=True).click()
    expect(last(other).locator(".answer-text")).to_have_text("crimson")
    expect(last(other).locator(".position")).to_have_text("2 / 2")


def conversation(**changes: Any) -> dict[str, Any]:
    """Return a conversation as the page exports it."""
    node = {"id": "n1", "after": "", "role": "user", "content": "Hello"}
    made = {"id": "c" * 24, "title": "Hello", "created": 1, "updated": 1, "settings": {}, "nodes": [node]}
    return {**made, "chosen": {"": "n1"}, **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "file.json is not JSON"),
        ("[]", "file.json has no conversations of this page"),
        ([conversation()] * 101, "file.json has more than 100 conversations"),
        ([conversation(id="<script>")], "a conversation has no id"),
        ([conversation(nodes=[{}] * 2001)], "a conversation is no list of at most 2000 messages"),
        ([conversation(nodes=[{"id": "n1", "after": "n2", "role": "user"}])], "a message does not follow an earlier"),
        ([conversation(nodes=[{"id": "n1", "after": "", "role": "system"}])], "a message has no id, place or role"),
        ([conversation(nodes=[None])], "a message is not an object"),
        ([None], "a conversation is not an object"),
    ],
)
def test_a_wrong_file_is_refused(
    scripted: str, open_page: OpenPage, tmp_path: Path, content: str | list[Any], message: str
) -> None:
    page = open_page(scripted)
    path = tmp_path / "file.json"
    wrapped = {"format": "intaglio conversations", "version": 1, "conversations": content}
    path.write_text(content if isinstance(content, str) else json.dumps(wrapped), encoding="utf-8")
    page.locator("#import-file").set_input_files(path)
    expect(page.locator(".toast")).to_contain_text(message)


def test_what_a_file_may_not_set_has_no_effect(scripted: str, open_page: OpenPage, tmp_path: Path) -> None:
    hostile = conversation(
        title="<img src=x onerror=alert(1)>",
        settings={"temperature": "hot", "__proto__": {"polluted": 1}, "tool_choice": {"x": 1}, "system": ["x"]},
        chosen={"": "n1", "n1": "n1", "__proto__": "n1"},
        updated=1e99,
    )
    page = open_page(scripted)
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"format": "intaglio conversations", "conversations": [hostile]}), encoding="utf-8")
    page.locator("#import-file").set_input_files(path)
    page.get_by_label("Kept conversations").locator(".entry").click()
    expect(page.locator(".turn.user .bubble")).to_have_text("Hello")
    expect(page.get_by_label("Temperature", exact=True)).to_have_value("")
    expect(page.locator("img")).to_have_count(0)


def test_the_oldest_of_more_than_a_hundred_conversations_gives_way(
    script: Script, scripted: str, open_page: OpenPage, tmp_path: Path
) -> None:
    many = [conversation(id=f"c{number:023}", title=f"number {number}", updated=number + 1) for number in range(100)]
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"format": "intaglio conversations", "conversations": many}), encoding="utf-8")
    script.answers = [text("new")]
    page = open_page(scripted)
    page.locator("#import-file").set_input_files(path)
    entries = page.get_by_label("Kept conversations").locator(".entry")
    expect(entries).to_have_count(100)
    ask(page, "One more")
    expect(entries).to_have_count(100)
    expect(entries.first).to_have_text("One more")
    expect(entries.last).to_have_text("number 1")


def test_a_full_browser_lets_the_oldest_go(script: Script, scripted: str, open_page: OpenPage, tmp_path: Path) -> None:
    node = {"id": "n1", "after": "", "role": "user", "content": "x" * 1_000_000}
    many = [conversation(id=f"c{number:023}", updated=number + 1, nodes=[node]) for number in range(8)]
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"format": "intaglio conversations", "conversations": many}), encoding="utf-8")
    script.answers = [text("new")]
    page = open_page(scripted)
    page.locator("#import-file").set_input_files(path)
    expect(page.get_by_text("8 conversations imported.")).to_be_visible()
    ask(page, "One more")
    page.reload()
    entries = page.get_by_label("Kept conversations").locator(".entry")
    expect(entries.first).to_have_text("One more")
    assert 1 < entries.count() < 8


def test_another_tab_shows_what_this_one_keeps(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [text("red")]
    page = open_page(scripted)
    other = page.context.new_page()
    other.goto(scripted)
    ask(page, "About red")
    expect(other.get_by_label("Kept conversations").locator(".entry")).to_have_text(["About red"])


def test_new_conversations_begin_with_the_last_settings(script: Script, scripted: str, open_page: OpenPage) -> None:
    page = open_page(scripted)
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.reload()
    page.get_by_role("button", name="Settings", exact=True).click()
    expect(page.get_by_label("System prompt")).to_have_value("Be brief.")


def test_a_key_is_asked_for_and_kept_in_the_tab(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.key = "right"
    script.answers = [text("welcome"), text("again")]
    page = open_page(scripted, expects_errors=True)
    dialog = page.get_by_role("dialog", name="This server needs an API key")
    expect(dialog).to_be_visible()
    page.get_by_role("textbox", name="API key").fill("wrong")
    page.get_by_role("textbox", name="API key").press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("The server refuses this key: give the API key of this server")
    page.get_by_role("textbox", name="API key").fill("right")
    page.get_by_role("button", name="Use this key").click()
    expect(dialog).to_be_hidden()
    ask(page, "Hello")
    expect(last(page).locator(".answer-text")).to_have_text("welcome")
    page.reload()
    expect(page.get_by_label("Model", exact=True)).to_have_value("scripted")
    expect(dialog).to_be_hidden()
    assert page.evaluate("JSON.stringify(localStorage)").count("right") == 0
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_role("button", name="Forget the API key").click()
    send(page, "Hello again")
    expect(dialog).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(last(page).locator(".note.error")).to_have_text("give the API key of this server")


def test_the_colors_follow_the_system_until_they_are_chosen(scripted: str, open_page: OpenPage) -> None:
    page = open_page(scripted, color_scheme="dark")

    def ground() -> str:
        found: str = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return found

    dark = ground()
    page.emulate_media(color_scheme="light")
    light = ground()
    assert dark != light
    page.get_by_role("button", name="Use dark colors").click()
    assert ground() == dark
    page.reload()
    assert ground() == dark
    page.get_by_role("button", name="Use light colors").click()
    assert ground() == light


def test_a_browser_that_keeps_nothing_still_talks(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [text("hello")]
    page = open_page(scripted)
    page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage']) "
        "Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    page.reload()
    expect(ask(page, "Hello").locator(".answer-text")).to_have_text("hello")
