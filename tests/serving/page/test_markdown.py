"""Markdown in the page: what it becomes, that a stream becomes the same, and that no text of a model does harm."""

import json
from pathlib import Path
from typing import Any

import pytest
from intaglio.tests.serving.page.hands import OpenPage, ask, expect
from intaglio.tests.serving.page.scripted import Script, text

pytestmark = pytest.mark.slow

SHOW = """async ([text, live]) => {
  const { MarkdownView } = await import("/page/markdown/view.js");
  const root = document.createElement("div");
  new MarkdownView(root).update(text, live);
  for (const bar of root.querySelectorAll(".code-bar")) bar.remove();
  for (const element of root.querySelectorAll("[dir], [tabindex], [rel], [target], [title]")) {
    for (const name of ["dir", "tabindex", "rel", "target", "title"]) element.removeAttribute(name);
  }
  return root.innerHTML;
}"""

CASES = json.loads(Path(__file__).with_name("markdown_cases.json").read_text(encoding="utf-8"))
"""Pairs of a text and the HTML that it becomes, without the attributes that ``SHOW`` removes."""


@pytest.fixture
def page(scripted: str, open_page: OpenPage) -> Any:
    return open_page(scripted)


def test_what_markdown_becomes(page: Any) -> None:
    wrong = {source: (shown, html) for source, html in CASES if (shown := page.evaluate(SHOW, [source, False])) != html}
    assert wrong == {}


def test_a_stream_becomes_the_same_in_any_pieces(page: Any) -> None:
    """Every prefix of the cases, joined into one text, is shown in turn; the result is that of the whole."""
    whole = "\n\n".join(source for source, _ in CASES)
    wrong = page.evaluate(
        """async (text) => {
          const { MarkdownView } = await import("/page/markdown/view.js");
          const show = (pieces) => {
            const root = document.createElement("div");
            const view = new MarkdownView(root);
            for (let end = pieces; end < text.length; end += pieces) view.update(text.slice(0, end), true);
            view.update(text, false);
            return root.innerHTML;
          };
          const expected = show(text.length);
          return [1, 2, 3, 7, 50].filter((pieces) => show(pieces) !== expected);
        }""",
        whole,
    )
    assert wrong == []


def test_blocks_that_are_complete_stay_as_they_are(page: Any) -> None:
    same = page.evaluate(
        """async () => {
          const { MarkdownView } = await import("/page/markdown/view.js");
          const root = document.createElement("div");
          const view = new MarkdownView(root);
          let text = "# Title\\n\\nA paragraph.\\n\\n- one\\n- two\\n\\n```\\ncode\\n";
          view.update(text, true);
          const before = [...root.children];
          for (const more of ["more code\\n", "```\\n", "\\nThe ", "end **of", "** it", "\\n\\n> last"]) {
            view.update(text += more, true);
          }
          return [before.length, ...before.map((element, at) => element === root.children[at])];
        }"""
    )
    assert same == [4, True, True, True, True]


def test_strong_text_and_code_do_not_flicker_while_they_are_written(page: Any) -> None:
    assert page.evaluate(SHOW, ["so **much te", True]) == "<p>so <strong>much te</strong></p>"
    assert page.evaluate(SHOW, ["so `co", True]) == "<p>so <code>co</code></p>"
    assert page.evaluate(SHOW, ["so **", True]) == "<p>so **</p>"
    assert page.evaluate(SHOW, ["2 ** 3 and", True]) == "<p>2 ** 3 and</p>"


LINK = "https://example.org/"
HOSTILE = {
    "one long line": "x" * 1_000_000,
    "one long line of words": "word " * 200_000,
    "many marks": "*_`[~$" * 160_000,
    "many opening marks": "**a " * 30_000,
    "many brackets": "[" * 99_000,
    "many links": f"[a]({LINK}) " * 60_000,
    "many half links": "[a](" * 24_000,
    "many backticks": "".join("`" * number + " " for number in range(1, 430)),
    "deep quotes": ">" * 200_000,
    "deep quotes on many lines": "\n".join(">" * (number % 3_000) + " x" for number in range(3_000)),
    "deep lists": "\n".join(" " * number + "- x" for number in range(1_400)),
    "deep lists on a line": "- " * 100_000,
    "deep emphasis": "*a **b " * 14_000 + "c** d*" * 14_000,
    "many list items": "- x\n" * 250_000,
    "many paragraphs": "x\n\n" * 330_000,
    "many rules": "---\n" * 250_000,
    "many headings": "# x\n" * 250_000,
    "many blank lines": "- x" + "\n" * 990_000 + "- y",
    "a long table": "|a|b|\n|-|-|\n" + "|1|2|\n" * 150_000,
    "a wide table": "|" + "a|" * 30_000 + "\n|" + "-|" * 400 + "\n",
    "a wide table with its rule": "|" + "a|" * 400 + "\n|" + "-|" * 400 + "\n" + ("|" + "1|" * 400 + "\n") * 900,
    "many tables": "|a|\n|-|\n\n" * 100_000,
    "long code": "```\n" + "x = 1\n" * 160_000,
    "many code blocks": "```\nx\n```\n" * 100_000,
    "many formulas": "\\[ x\n" * 190_000,
    "many spaces": " " * 500_000 + "x" + " " * 500_000,
    "a rule of spaces": "-" + " " * 900_000 + "-" + " " * 90_000 + "x",
    "many escapes": "\\" * 99_000,
    "many dollars": "$a " * 33_000,
    "many hosts": "http://" * 14_000,
    "a host of points": "[" + "a." * 40_000 + f"]({LINK})",
    "marks that join": "\u0301" * 300_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_of_a_model_freezes_the_page(page: Any, name: str) -> None:
    """The text is shown whole, and a second time in pieces; elements stay few, whatever it is."""
    counts = page.evaluate(
        """async (text) => {
          const { MarkdownView } = await import("/page/markdown/view.js");
          const root = document.querySelector("#turns").appendChild(document.createElement("li"));
          const found = [];
          for (const pieces of [1, 4]) {
            const view = new MarkdownView(root);
            for (let piece = 1; piece <= pieces; piece += 1) {
              view.update(text.slice(0, (text.length * piece) / pieces), piece < pieces);
            }
            found.push(root.querySelectorAll("*").length);
          }
          return found;
        }""",
        HOSTILE[name],
    )
    assert max(counts) < 40_000


def test_a_hostile_answer_does_no_harm(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [
        text(
            "<script>document.title = 'stolen'</script><img src=//evil.example/x onerror=alert(1)>\n\n",
            "![x](https://evil.example/p.png) [click](javascript:document.title='stolen') <svg onload=alert(1)>\n\n",
            "```html\n<iframe src=https://evil.example></iframe>\n```\n\n<style>body { display: none }</style>\n\n",
            "x" * 1_000_000,
            "\n\n|a|\n|-|\n" + "|1|\n" * 20_000,
        ),
        [{"reasoning_content": "<script>alert(1)</script>" + "\u202e" * 100}, *text("end")],
    ]
    page = open_page(scripted)
    turn = ask(page, "<b>Hello</b> \u202e")
    expect(page.locator(".turn.user .bubble")).to_have_text("<b>Hello</b> ⟨U+202E⟩")
    assert turn.locator("script, img, svg:not(.icon), iframe, style").count() == 0
    assert turn.locator("a").evaluate_all("links => links.map(({ href, rel, target }) => [href, rel, target])") == [
        ["https://evil.example/p.png", "noopener noreferrer", "_blank"]
    ]
    ask(page, "And now?")
    assert "stolen" not in page.title()
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()


def test_text_and_code_are_copied(script: Script, scripted: str, open_page: OpenPage) -> None:
    script.answers = [text("Some **text**.\n\n```py\nx = 1\ny = 2\n```\n")]
    page = open_page(scripted)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    turn = ask(page, "Code, please")
    turn.locator(".code-bar").get_by_role("button", name="Copy").click()
    expect(turn.locator(".code-bar .caption")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "x = 1\ny = 2"
    turn.locator(".turn-tools").get_by_role("button", name="Copy").click()
    expect(turn.locator(".turn-tools .caption")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "Some **text**.\n\n```py\nx = 1\ny = 2\n```\n"


def test_without_a_clipboard_the_selection_is_copied(script: Script, scripted: str, open_page: OpenPage) -> None:
    """As on a page that is not from a secure origin."""
    script.answers = [text("Some text.")]
    page = open_page(scripted)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    turn = ask(page, "Hello")
    turn.get_by_role("button", name="Copy").click()
    expect(turn.locator(".turn-tools .caption")).to_have_text("Copied")
    field = page.get_by_label("Message", exact=True)
    field.press("Control+V")
    expect(field).to_have_value("Some text.")
