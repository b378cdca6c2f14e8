"""Conversations in the page, with a server whose answers are written here."""

from collections.abc import Callable
from typing import Any

import pytest
from intaglio.tests.serving.page.scripted import HOLD, Script, text

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
expect = sync_api.expect

pytestmark = pytest.mark.slow
OpenPage = Callable[..., Any]


def send(page: Any, message: str) -> None:
    page.get_by_label("Message", exact=True).fill(message)
    page.keyboard.press("Enter")


def last(page: Any) -> Any:
    """Return the last turn of the model."""
    return page.locator(".turn.model").last


def test_an_answer_is_streamed_with_its_figures(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [[*text("A **bold", "** answer"), HOLD, *text(" with `code`.")]]
    page = open_page(scripted)
    send(page, "Hello")
    expect(last(page).locator(".prose strong")).to_have_text("bold")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    script.go.set()
    expect(last(page).locator(".prose code")).to_have_text("code")
    figures = last(page).get_by_label("Figures of this answer")
    expect(figures).to_contain_text("tokens/s")
    expect(figures).to_contain_text("40 tokens")
    expect(figures).to_contain_text("first after")
    expect(figures).to_contain_text("prompt 120, 96 cached")
    assert script.bodies == [
        {
            "model": "scripted",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]
