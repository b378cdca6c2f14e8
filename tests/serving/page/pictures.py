"""The pictures of the page in docs/images: ``python -m intaglio.tests.serving.page.pictures docs/images``."""

import io
import sys
from pathlib import Path

from intaglio.tests.serving.page.hands import ask, expect, last
from intaglio.tests.serving.page.scripted import Script, call, scripted_server, text
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

QUALITY = 82  # of WebP
SIZES = {1280: (1280, 920), 390: (390, 844)}

QUESTION = "How warm is it in Seoul now? Compare that with the usual temperature of April."
THOUGHT = "The user asks for the temperature now, so I need the tool. The usual temperatures of April I know."
ANSWER = """It is **9 °C** in Seoul, which is cool for April:

| | now | usual in April |
|:--|--:|--:|
| temperature | 9 °C | 13 °C |
| night | 4 °C | 8 °C |

The night is colder than usual by the same 4 °C.
"""


def pieces(content: str) -> list[dict[str, str]]:
    """Return the deltas of a text, a few characters each."""
    return text(*(content[at : at + 4] for at in range(0, len(content), 4)))


def picture(browser: Browser, width: int, scheme: str) -> bytes:
    """Return a picture of a conversation as PNG."""
    thought = [{"reasoning_content": delta["content"]} for delta in pieces(THOUGHT)]
    script = Script(pace=0.012)
    script.models[0] |= {"id": "exaone-4.0-1.2b-int4", "source": {"id": "LGAI-EXAONE/EXAONE-4.0-1.2B"}}
    script.answers = [[*thought, *call("get_weather", {"city": "Seoul", "unit": "celsius"})], pieces(ANSWER)]
    with scripted_server(script) as address:
        page = browser.new_page(
            viewport={"width": SIZES[width][0], "height": SIZES[width][1]},
            color_scheme=scheme,  # type: ignore[arg-type]
            has_touch=width == 390,
            is_mobile=width == 390,
            device_scale_factor=2 if width == 390 else 1,
        )
        page.goto(address)
        ask(page, QUESTION)
        page.get_by_label("Result of get_weather").fill('{"temperature": 9, "night": 4}')
        page.get_by_role("button", name="Send result").click()
        expect(last(page).locator(".figures")).to_contain_text("tokens/s")
        page.get_by_role("heading", name="You", exact=True).last.scroll_into_view_if_needed()
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        shot = page.screenshot()
        page.close()
        return shot


def main(folder: Path) -> None:
    """Write the four pictures."""
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        for width in SIZES:
            for scheme in ("light", "dark"):
                image = Image.open(io.BytesIO(picture(browser, width, scheme))).convert("RGB")
                image.save(folder / f"serving-page-{width}-{scheme}.webp", quality=QUALITY, method=6)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
