"""Markdown in the page: what it becomes, that a stream of it becomes the same, and that no text of a model does harm."""

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

CASES = [
    ("", ""),
    ("plain", "<p>plain</p>"),
    ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
    ("one  \ntwo\\\nthree", "<p>one  <br>two<br>three</p>"),
    ("# One\n## Two #\n####### seven", "<h3>One</h3><h4>Two</h4><p>####### seven</p>"),
    ("#hashtag", "<p>#hashtag</p>"),
    ("a *b* **c** ***d*** _e_ __f__ ~~g~~", "<p>a <em>b</em> <strong>c</strong> <em><strong>d</strong></em> <em>e</em> "
     "<strong>f</strong> <del>g</del></p>"),
    ("snake_case_name and 2 * 3 * 4", "<p>snake_case_name and 2 * 3 * 4</p>"),
    ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
    ("**강조**는 **“인용”**을", "<p><strong>강조</strong>는 <strong>“인용”</strong>을</p>"),
    ("*open **both", "<p>*open **both</p>"),
    ("`a *b*` ``c ` d`` `open", "<p><code>a *b*</code> <code>c ` d</code> `open</p>"),
    (r"\*not\* \`code\` \\", r"<p>*not* `code` \</p>"),
    ("- a\n- b\n  - c\n    - d\n- e", "<ul><li>a</li><li>b<ul><li>c<ul><li>d</li></ul></li></ul></li><li>e</li></ul>"),
    ("1. a\n   - b\n2. c", "<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"),
    ("1. a\n  - b\n\n2. c", "<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"),
    ("3) a\n4) b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    ("- a\n\n  more\n\n  ```\n  x\n  ```", '<ul><li>a<p>more</p><div class="code-block"><pre><code>x</code></pre></div></li></ul>'),
    ("- [x] done\n- [ ] open", '<ul><li class="has-task"><span class="task" role="img" aria-label="done">☑</span>done</li>'
     '<li class="has-task"><span class="task" role="img" aria-label="open">☐</span>open</li></ul>'),
    ("- a\nlazy\n\nafter", "<ul><li>a<br>lazy</li></ul><p>after</p>"),
    ("> a\n> > b\n\nc", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>"),
    ("---\n* * *", "<hr><hr>"),
    ("```py\nx = 1 < 2\n```\nafter", '<div class="code-block"><pre><code>x = 1 &lt; 2</code></pre></div><p>after</p>'),
    ("~~~\n```\n~~~", '<div class="code-block"><pre><code>```</code></pre></div>'),
    ("````\n```\n````", '<div class="code-block"><pre><code>```</code></pre></div>'),
    ("```\nopen *end*", '<div class="code-block"><pre><code>open *end*</code></pre></div>'),
    ("| a | b |\n|---|:-:|\n| 1 \\| 2 | *x* |\n| 3 |\nend", '<div class="table-box"><table><thead><tr><th class="align-left">a</th>'
     '<th class="align-center">b</th></tr></thead><tbody><tr><td class="align-left">1 | 2</td><td class="align-center"><em>x</em></td></tr>'
     '<tr><td class="align-left">3</td><td class="align-center"></td></tr><tr><td class="align-left">end</td><td class="align-center"></td></tr></tbody></table></div>'),
    ("text\n| a |\n| - |\n| 1 |", '<p>text</p><div class="table-box"><table><thead><tr><th class="align-left">a</th></tr></thead>'
     '<tbody><tr><td class="align-left">1</td></tr></tbody></table></div>'),
    ("a | b\nno table", "<p>a | b<br>no table</p>"),
    ("x<br>y<br />z", "<p>x<br>y<br>z</p>"),
    ("[a *b*](https://e.org/x_(y) \"t\") c", '<p><a href="https://e.org/x_(y)">a <em>b</em></a> c</p>'),
    ("see https://e.org/a_b_c, or <https://e.org>.", '<p>see <a href="https://e.org/a_b_c">https://e.org/a_b_c</a>, or '
     '<a href="https://e.org/">https://e.org</a>.</p>'),
    ("(https://e.org/x)", '<p>(<a href="https://e.org/x">https://e.org/x</a>)</p>'),
    ("<mailto:a@b.org>", '<p><a href="mailto:a@b.org">mailto:a@b.org</a></p>'),
    ("![a picture](https://e.org/p.png)", '<p><a href="https://e.org/p.png">a picture</a></p>'),
    ("[https://good.org](https://evil.org)", '<p><a href="https://evil.org/">https://good.org<span class="host"> (evil.org)</span></a></p>'),
    ("[x](javascript:alert(1)) [y](data:text/html,z) [z](/v1) [w](//e.org)",
     "<p>[x](javascript:alert(1)) [y](data:text/html,z) [z](/v1) [w](//e.org)</p>"),
    ("[x](JaVaScRiPt:alert) <javascript:alert(1)>", "<p>[x](JaVaScRiPt:alert) &lt;javascript:alert(1)&gt;</p>"),
    ("$a_1 * b_2 * c$ and \\(x_1 * y * z\\)", "<p>$a_1 * b_2 * c$ and \\(x_1 * y * z\\)</p>"),
    ("it costs $5 and *not* $6", "<p>it costs $5 and <em>not</em> $6</p>"),
    ("$$\na_1 * b\n\n* c\n$$\nafter", '<p class="math">$$\na_1 * b\n\n* c\n$$</p><p>after</p>'),
    ("\\[\nx\n\\]", '<p class="math">\\[\nx\n\\]</p>'),
    ("$$ is money *here*", "<p>$$ is money <em>here</em></p>"),
    ("<script>alert(1)</script><img src=x onerror=alert(1)>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;</p>"),
    ("a\u202eb\u0000c\u2066d", "<p>a⟨U+202E⟩b⟨U+0000⟩c⟨U+2066⟩d</p>"),
    ("`\u202e`", "<p><code>⟨U+202E⟩</code></p>"),
    ("a\r\nb\r\n\r\nc", "<p>a<br>b</p><p>c</p>"),
]  # fmt: skip


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
          for (const more of ["more code\\n", "```\\n", "\\nThe ", "end **of", "** it", "\\n\\n> last"]) view.update(text += more, true);
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
            for (let piece = 1; piece <= pieces; piece += 1) view.update(text.slice(0, (text.length * piece) / pieces), piece < pieces);
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
