"""A browser without a window, and tabs that watch what the page does."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from intaglio.tests.serving.page.scripted import Script, scripted_server

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")

BROWSERS = (Path("/usr/bin/chromium"), Path("/usr/bin/chromium-browser"), Path("/usr/bin/google-chrome"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`);
});
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; skips where there is none."""
    found = next((path for path in BROWSERS if path.exists()), None)
    if found is None:
        pytest.skip("needs Chromium at one of " + ", ".join(map(str, BROWSERS)))
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=str(found), args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def script() -> Script:
    """What the scripted server answers."""
    return Script()


@pytest.fixture
def scripted(script: Script) -> Iterator[str]:
    """The address of a server whose answers ``script`` has."""
    with scripted_server(script) as address:
        yield address


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens an address in a tab; in the end no tab may have met an error.

    Errors are messages of the console, exceptions, violations of the content security policy, and requests that leave
    the origin. ``expects_errors`` lets failed requests be: a browser notes them in the console.
    """
    contexts, problems = [], []

    def open_one(address: str, *, expects_errors: bool = False, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(10_000)
        context.add_init_script(VIOLATIONS)
        contexts.append(context)
        page = context.new_page()

        def on_console(message: Any) -> None:
            failed = "Failed to load resource" in message.text
            if message.type in ("error", "warning") and not (expects_errors and failed):
                problems.append(f"console: {message.text}")

        def on_request(request: Any) -> None:
            parts = urlsplit(request.url)
            if f"{parts.scheme}://{parts.netloc}" != address and parts.scheme not in ("blob", "data"):
                problems.append(f"a request leaves the origin: {request.url}")

        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
        context.on("request", on_request)
        page.goto(address)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []
