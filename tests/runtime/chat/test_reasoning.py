"""Thought and answer in streamed text: independent of the chunks, and only a possible tag is held back."""

import pytest
from intaglio.files.chat.template import ChatFormat
from intaglio.runtime.chat.reasoning import CLOSE, OPEN, ReasoningParser

FENCE = "```"
# text, whether the template has opened the block, the thought (None: there was no block), the answer
CASES: dict[str, tuple[str, bool, str | None, str]] = {
    "no thought": ("2 < 3 is `true`.", False, None, "2 < 3 is `true`."),
    "opened by the template": ("add\n</think>\n\n2", True, "add\n", "2"),
    "opened by the model": ("<think>\nadd\n</think>\n\n2", False, "\nadd\n", "2"),
    "opened by the model, after space": ("\n <think>add</think>2", False, "add", "2"),
    "never closed": ("add and\nadd", True, "add and\nadd", ""),
    "opened by the model, never closed": ("<think>add", False, "add", ""),
    "closed at once": ("</think>2", True, "", "2"),
    "nothing after the thought": ("add</think>\n\n", True, "add", ""),
    "nothing at all": ("", True, "", ""),
    "space and nothing else": (" \n", False, None, " \n"),
    "a second block": ("a</think>\n<think>b</think>c", True, "ab", "c"),
    "Korean": ("더하면 2<3</think>답: 둘 🙂", True, "더하면 2<3", "답: 둘 🙂"),
    "a tag later in the answer": ("a</think>b <think>c</think> d", True, "a", "b <think>c</think> d"),
    "a tag in the answer's text": ("see <think>", False, None, "see <think>"),
    "a closing tag in the answer": ("see </think>", False, None, "see </think>"),
    "tags in the answer's code": (
        f"a</think>{FENCE}\n<think>\n</think>\n{FENCE}",
        True,
        "a",
        f"{FENCE}\n<think>\n</think>\n{FENCE}",
    ),
    "tags in the thought's fenced code": (
        f"see\n{FENCE}xml\n<think>\nx\n</think>\n{FENCE}\nso</think>b",
        True,
        f"see\n{FENCE}xml\n<think>\nx\n</think>\n{FENCE}\nso",
        "b",
    ),
    "a closing tag in a line of the thought's code": (
        f"see\n{FENCE}\ntext.split('</think>')\n{FENCE}\n</think>b",
        True,
        f"see\n{FENCE}\ntext.split('</think>')\n{FENCE}\n",
        "b",
    ),
    "tags in the thought's inline code": (
        "the tags `<think>` and ``</think>``.</think>b",
        True,
        "the tags `<think>` and ``</think>``.",
        "b",
    ),
    "inline code that its line does not close": ("it`s\n</think>b", True, "it`s\n", "b"),
    "a fence that is never closed": (f"see\n{FENCE}\nx = 1\n</think>b", True, f"see\n{FENCE}\nx = 1\n", "b"),
    "a longer fence": (
        f"{FENCE}`\n{FENCE}\n'</think>'\n{FENCE}`\n</think>b",
        True,
        f"{FENCE}`\n{FENCE}\n'</think>'\n{FENCE}`\n",
        "b",
    ),
    "three backticks within a line": (f"a {FENCE}b{FENCE} c</think>d", True, f"a {FENCE}b{FENCE} c", "d"),
    "a mention of the opening tag": (
        "The user asks what the <think> tag does.\n</think>\n\nIt opens a thought.",
        True,
        "The user asks what the <think> tag does.\n",
        "It opens a thought.",
    ),
    "several mentions": ("<think> opens, <think>\n<think></think>d", True, "<think> opens, <think>\n<think>", "d"),
    "a mention in a thought of the model's": ("<think>\nwhat <think> is</think>b", False, "\nwhat <think> is", "b"),
    "a mention in an open fence": (f"{FENCE}xml\n<think>\n</think>\n\nb", True, f"{FENCE}xml\n<think>\n", "b"),
    "a mention of both in an open fence": (
        f"{FENCE}\n<think>a</think>\n</think>\nb",
        True,
        f"{FENCE}\n<think>a</think>\n",
        "b",
    ),
    "a single backtick before the end": ("the ` sign</think>b", True, "the ` sign", "b"),
    "only a mention of the closing tag": ("so `</think>` ends it", True, "so `", "` ends it"),
    "two mentions and no end": ("`</think>` and `</think>` end", True, "`</think>` and `", "` end"),
    "a block in the block": ("a<think>b</think>c</think>d", True, "a<think>b", "c</think>d"),
    "what is almost a tag": ("a <thin> </thinker> <</think>b", True, "a <thin> </thinker> <", "b"),
}


def split(pieces: list[str], opened: bool) -> tuple[str | None, str]:
    reasoning = ReasoningParser(opened=opened)
    parts = [part for piece in pieces for part in reasoning.push(piece)] + reasoning.flush()
    assert all(part.text for part in parts)
    thought = "".join(part.text for part in parts if part.kind == "thought")
    answer = "".join(part.text for part in parts if part.kind == "answer")
    return thought if reasoning.has_thought else None, answer


@pytest.mark.parametrize("case", CASES)
def test_thought_and_answer(case: str) -> None:
    text, opened, thought, answer = CASES[case]
    assert split([text], opened) == (thought, answer)


@pytest.mark.parametrize("case", CASES)
def test_chunk_boundaries_do_not_change_the_result(case: str) -> None:
    text, opened, thought, answer = CASES[case]
    assert split(list(text), opened) == (thought, answer)
    for first in range(len(text) + 1):
        for second in range(first, min(len(text), first + 12) + 1):
            assert split([text[:first], text[first:second], text[second:]], opened) == (thought, answer)


@pytest.mark.parametrize("case", CASES)
def test_streamed_text_is_a_prefix_of_the_whole(case: str) -> None:
    """Check that shown text is final, and that at most a tag is held back, and what follows a closing tag in code."""
    text, opened, thought, answer = CASES[case]
    reasoning = ReasoningParser(opened=opened)
    shown = {"thought": "", "answer": ""}
    for at, character in enumerate(text, 1):
        for part in reasoning.push(character):
            shown[part.kind] += part.text
        assert (thought or "").startswith(shown["thought"])
        assert answer.startswith(shown["answer"])
        whole = split([text[:at]], opened)
        behind = len(whole[0] or "") + len(whole[1]) - len(shown["thought"]) - len(shown["answer"])
        held = text[:at][len(text[:at]) - behind :]
        assert OPEN.startswith(held.strip()) or CLOSE.startswith(held) or CLOSE in text[:at]


def test_a_long_thought_takes_linear_time() -> None:
    """Push one character at a time without a closing tag; quadratic time would take minutes."""
    reasoning = ReasoningParser(opened=True)
    pushed = sum(len(part.text) for character in "<b> ` " * 20_000 for part in reasoning.push(character))
    assert pushed == len("<b> ` ") * 20_000


# How the templates of Qwen3, EXAONE 4.0 and DeepSeek-R1 take a past turn apart.
TEMPLATE = """{%- set content = messages[-1].content -%}
{{- content.split('</think>')[-1].lstrip('\\n') -}}"""


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][0].count(CLOSE) == 1 and CASES[case][1]])
def test_the_answer_is_where_the_templates_cut(case: str) -> None:
    text, _, _, answer = CASES[case]
    rendered = ChatFormat("out", {"default": TEMPLATE}).render([{"role": "assistant", "content": text}])
    assert rendered.strip() == answer.strip()
