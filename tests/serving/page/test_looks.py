"""How the page looks and how it is operated: widths, contrast, keyboard, screen readers."""

from typing import Any

import pytest
from intaglio.tests.serving.page.hands import OpenPage, ask, expect, last, send
from intaglio.tests.serving.page.scripted import HOLD, Script, call, text

pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
EVERYTHING = (
    """# Heading

A [link](https://example.com), `code`, **strong** and *emphasis*, and a quote:

> quoted text

| a | b |
|---|---|
| 1 | 2 |

```python
print("a line of code that is much longer than any phone is wide, so that it has to be scrolled sideways by hand")
```

Averylongword"""
    + "x" * 300
)

CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (node.data.trim() === "") continue;
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest("button:disabled, .offscreen, .skip, option, noscript, script, style")) continue;
    const grounds = [];
    for (let at = element; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
    const style = getComputedStyle(element);
    const ground = light(paint(grounds));
    const ink = light(paint([...grounds, style.color]));
    const ratio = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    found.push([node.data.trim().slice(0, 40), ratio, large ? 3 : 4.5]);
  }
  return found;
}"""
"""Return [text, contrast with its ground, the least contrast that WCAG AA allows] of every text that is shown."""


def everything(script: Script, page: Any) -> None:
    """Have a conversation with everything that the page can show, and open the settings."""
    script.answers = [
        [{"reasoning_content": "A thought."}, *text(EVERYTHING), *call("get_weather", {"city": "Seoul" * 40})],
        [*text("So far"), {"error": {"message": "the server failed " + "on" * 200}}],
    ]
    ask(page, "A question " + "without a space" * 3 + "y" * 200)
    last(page).locator(".thought summary").click()
    ask(page, "Another")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(script: Script, scripted: str, open_page: OpenPage, scheme: str) -> None:
    page = open_page(scripted, color_scheme=scheme)
    pairs = page.evaluate(CONTRAST)
    everything(script, page)
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_label("JSON schema").fill("{")
    expect(page.locator("#schema-problem")).to_be_visible()
    pairs += page.evaluate(CONTRAST)
    page.get_by_role("button", name="About scripted: faithful").click()
    pairs += page.evaluate(CONTRAST)
    assert len(pairs) > 80
    assert [pair for pair in pairs if pair[1] < pair[2]] == []


def test_a_phone_scrolls_downwards_alone(script: Script, scripted: str, open_page: OpenPage) -> None:
    page = open_page(scripted, **PHONE)

    def too_wide() -> list[str]:
        found: list[str] = page.evaluate(
            """() => [...document.querySelectorAll("html, body, #scroller, dialog[open], main")]
              .filter((box) => box.scrollWidth > box.clientWidth || box.getBoundingClientRect().right > innerWidth + 1)
              .map((box) => box.tagName + "#" + box.id)"""
        )
        return found

    assert too_wide() == []
    everything(script, page)
    assert too_wide() == []
    for button, panel in (("Conversations", "Conversations"), ("Settings", "Settings")):
        page.get_by_role("button", name=button, exact=True).click()
        expect(page.get_by_role("dialog", name=panel)).to_be_visible()
        assert too_wide() == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog", name=panel)).to_be_hidden()
    page.get_by_role("button", name="About scripted: faithful").click()
    assert too_wide() == []


def test_panels_of_a_phone_close_when_something_is_chosen(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [text("red")]
    page = open_page(scripted, **PHONE)
    page.get_by_label("Message", exact=True).fill("About red")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(last(page).locator(".answer-text")).to_have_text("red")
    page.get_by_role("button", name="Conversations", exact=True).click()
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("dialog", name="Conversations")).to_be_hidden()
    expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()


def test_enter_begins_a_line_on_a_touch_screen(scripted: str, open_page: OpenPage) -> None:
    page = open_page(scripted, **PHONE)
    field = page.get_by_label("Message", exact=True)
    field.fill("one")
    field.press("Enter")
    expect(field).to_have_value("one\n")


def focused(page: Any) -> str:
    """Return the name of the element that has the focus; nothing for the page as a whole."""
    found: str = page.evaluate(
        """() => {
          const { ariaLabel, labels, innerText, tagName } = document.activeElement;
          return tagName === "BODY" ? "" : (ariaLabel || labels?.[0]?.innerText || innerText || "").trim();
        }"""
    )
    return found


def tab_to(page: Any, name: str) -> None:
    """Press Tab until an element has the focus; each one on the way must show that it has."""
    for _ in range(60):
        page.keyboard.press("Tab")
        # The field of a message leaves the outline to the box around it; the body is the end of the round.
        outlines = page.evaluate(
            "[document.activeElement, document.activeElement.parentElement ?? document.body]"
            ".map((at) => getComputedStyle(at).outlineStyle)"
        )
        at_the_end = page.evaluate("document.activeElement === document.body")
        assert at_the_end or outlines != ["none", "none"], focused(page)
        if focused(page).startswith(name):
            return
    raise AssertionError(f"Tab does not lead to {name}")


def test_the_keyboard_alone(script: Script, scripted: str, open_page: OpenPage) -> None:
    calls = call("get_time", {})
    script.answers = [[*text("Once"), HOLD], calls, text("It is noon."), text("Changed.")]
    page = open_page(scripted)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("A")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("story")
    page.keyboard.press("Enter")
    expect(last(page).locator(".answer-text")).to_have_text("Once")
    page.keyboard.press("Escape")
    expect(last(page).locator(".note")).to_have_text("You stopped this answer.")
    assert script.bodies[0]["messages"][0]["content"] == "A\nstory"
    page.keyboard.type("The time?")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Result of get_time")).to_be_visible()
    page.evaluate("document.activeElement.blur()")
    tab_to(page, "Skip to the message field")
    tab_to(page, "Result of get_time")
    page.keyboard.type("noon")
    tab_to(page, "Send result")
    page.keyboard.press("Enter")
    expect(last(page).locator(".answer-text")).to_have_text("It is noon.")
    page.evaluate("document.activeElement.blur()")
    tab_to(page, "Skip to the message field")
    page.keyboard.press("Enter")
    assert focused(page) == "Message"
    page.keyboard.press("ArrowUp")
    assert focused(page) == "Your message"
    page.keyboard.type("!")
    page.keyboard.press("Enter")
    expect(last(page).locator(".answer-text")).to_have_text("Changed.")


def test_escape_ends_an_edit_and_not_the_answer(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [text("one")]
    page = open_page(scripted)
    ask(page, "First")
    page.get_by_label("Message", exact=True).press("ArrowUp")
    page.get_by_label("Your message").fill("Other")
    page.keyboard.press("Escape")
    expect(page.locator(".turn.user .bubble")).to_have_text("First")


def test_enter_of_a_composition_sends_nothing(scripted: str, open_page: OpenPage) -> None:
    page = open_page(scripted)
    field = page.get_by_label("Message", exact=True)
    field.fill("안녕")
    field.evaluate(
        "box => box.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', isComposing: true, bubbles: true }))"
    )
    expect(field).to_have_value("안녕")
    expect(page.locator(".turn")).to_have_count(0)


def test_a_screen_reader_hears_of_the_answer_once(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [[*text("Half"), HOLD, *text(" and whole.")]]
    page = open_page(scripted)
    send(page, "Hello")
    expect(page.locator("#status")).to_have_text("The model writes.")
    expect(last(page)).to_have_attribute("aria-busy", "true")
    script.go.set()
    expect(page.locator("#status")).to_have_text("Half and whole.")


def test_every_control_has_a_name(script: Script, scripted: str, open_page: OpenPage) -> None:
    page = open_page(scripted)
    everything(script, page)
    page.get_by_role("button", name="Settings", exact=True).click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, select")]
          .filter((control) => !(control.ariaLabel || control.labels?.length || control.innerText.trim()))
          .map((control) => control.outerHTML.slice(0, 90))"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(({ id }) => id)")
    assert len(ids) == len(set(ids))


def test_reduced_motion_has_none(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [[HOLD]]
    page = open_page(scripted, reduced_motion="reduce")
    send(page, "Hello")
    expect(page.locator(".dot").first).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0
