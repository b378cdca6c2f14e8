"""What a reader does with the page, in the browser's tab."""

import time
from collections.abc import Callable
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
expect = sync_api.expect

OpenPage = Callable[..., Any]
"""The fixture ``open_page``."""

PATIENCE_S = 10.0


def send(page: Any, message: str) -> None:
    """Write a message and send it."""
    page.get_by_label("Message", exact=True).fill(message)
    page.get_by_role("button", name="Send", exact=True).click()


def ask(page: Any, message: str) -> Any:
    """Send a message; return the turn of the complete answer."""
    turns = page.locator(".turn.model")
    before = turns.count()
    send(page, message)
    expect(turns).to_have_count(before + 1)
    expect(turns.last).to_have_attribute("aria-busy", "false")
    return turns.last


def last(page: Any) -> Any:
    """Return the last turn of the model."""
    return page.locator(".turn.model").last


def eventually(page: Any, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that the browser does not know of."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it has not happened"
        page.wait_for_timeout(10)
