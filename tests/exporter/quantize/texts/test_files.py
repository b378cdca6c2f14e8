"""Calibration files of JSON lines: chats in the checkpoint's template, texts, and every line that is refused."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import UsageError
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.exporter.quantize.texts.files import FORM, read_text
from intaglio.files.chat.template import read_chat_format

SOURCE = Path(__file__).parents[3] / "checkpoints" / "tiny-qwen2"
MESSAGES = [{"role": "user", "content": "What is a seal?"}, {"role": "assistant", "content": "A stone."}]
TOOLS = [{"type": "function", "function": {"name": "weigh", "description": "Weigh it.", "parameters": {}}}]


def lines(path: Path, *values: Any) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values), encoding="utf-8")
    return path


def refused(path: Path, folder: Path = SOURCE) -> str:
    with pytest.raises(UsageError) as caught:
        read_text(path, folder)
    return str(caught.value)


def test_chats_are_rendered_by_the_checkpoints_template(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "chats.jsonl",
        {"messages": MESSAGES, "id": 7},
        {"messages": MESSAGES, "tools": TOOLS},
        {"messages": MESSAGES, "tools": None},
    )
    template = read_chat_format(SOURCE)
    plain = template.render(MESSAGES, add_generation_prompt=False)
    with_tools = template.render(MESSAGES, tools=TOOLS, add_generation_prompt=False)
    assert "weigh" in with_tools
    assert plain.startswith("<|im_start|>")
    assert plain.endswith("<|im_end|>\n")
    text, digest = read_text(path, SOURCE)
    assert text == plain + with_tools + plain
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_lines_of_text_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "one"}\r\n\n{"text": "two\\u2028more\\n", "source": "x"}\n  \n', encoding="utf-8")
    assert read_text(path, tmp_path)[0] == "one\ntwo\u2028more\n"  # no template is read
    path.write_text('{"text": "a\u2028b"}', encoding="utf-8")
    assert read_text(path, tmp_path)[0] == "a\u2028b\n"


def test_other_files_are_text_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n')
    assert read_text(path, SOURCE)[0] == '{"text": "one"}\n'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a" "b"}', f"not JSON (Expecting ',' delimiter: line 1 column 14 (char 13)); {FORM}"),
        ('{"text": "a", "text": "b"}', f"not JSON (the key 'text' is given twice); {FORM}"),
        ('["text"]', f'it has neither "messages" nor "text"; {FORM}'),
        ('{"conversations": []}', f'it has neither "messages" nor "text"; {FORM}'),
        ('{"text": 3}', f'"text" is not a string; {FORM}'),
        ('{"messages": "hi"}', f'"messages" is not a list; {FORM}'),
        ('{"messages": [], "tools": {}}', f'"tools" is not a list; {FORM}'),
        ('{"messages": []}', '"messages" is empty; leave the line out'),
        ('{"messages": null}', '"messages" is empty; leave the line out'),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(f'{{"text": "first"}}\n\n{line}\n', encoding="utf-8")
    assert refused(path) == f"{path}, line 3: {reason}"


def test_a_message_and_a_tool_that_cannot_be_rendered_are_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "chats.jsonl", {"text": "one"}, {"messages": [{"content": "no role"}]})
    assert refused(path).startswith(f"{path}, line 2: message 0 ")
    lines(path, {"messages": MESSAGES, "tools": [3]})
    assert refused(path).startswith(f"{path}, line 1: ")


def test_a_template_that_fails_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(SOURCE, folder)
    path = lines(tmp_path / "chats.jsonl", {"text": "one"}, {"messages": MESSAGES})
    template = folder / "chat_template.jinja"
    template.write_text("{% if messages[0]['role'] == 'user' %}{{ raise_exception('no user first') }}{% endif %}")
    assert refused(path, folder) == (
        f"{path}, line 2: {folder}: its chat template fails on message 0 of 2, role 'user': no user first; change the "
        "message to one that the template accepts"
    )
    template.write_text("{% if %}")
    assert refused(path, folder).startswith(f"{path}, line 2: {folder}: its chat template cannot be read: line 1: ")
    template.unlink()
    assert refused(path, folder) == (
        f"{path}, line 2: a chat, and {folder} has no chat template to render it with; add chat_template.jinja, or "
        'give lines with "text"'
    )


def test_chats_calibrate_and_are_recorded(tmp_path: Path) -> None:
    path = lines(tmp_path / "chats.jsonl", *({"messages": MESSAGES} for _ in range(120)))
    manifest = quantize(SOURCE, tmp_path / "out", options=QuantizeOptions("gptq", calibration=path, windows=4))
    (text,) = manifest.calibration
    assert (text.name, text.sha256) == ("chats.jsonl", hashlib.sha256(path.read_bytes()).hexdigest())
    assert text.tokens >= 2048
