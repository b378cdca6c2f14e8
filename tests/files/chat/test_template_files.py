"""Where templates and special tokens come from: a folder's files, as transformers reads them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from intaglio.artifact import TEMPLATE_FOLDER
from intaglio.errors import ArtifactError, UsageError
from intaglio.files.chat.template import read_chat_format
from intaglio.tests.files.chat.conversations import (
    ASKED,
    CHECKPOINTS,
    CLOCK,
    FAMILIES,
)


def write(folder: Path, jinja: str | None = None, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja, encoding="utf-8")
    return folder


def test_where_templates_come_from(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "uses {{ tools | length if tools else 0 }}"},
    ]
    several = read_chat_format(write(tmp_path, chat_template=named))
    assert several.render([ASKED]) == "plain"
    assert several.render([ASKED], tools=[CLOCK]) == "uses 1"
    assert several.render([ASKED], template="tool_use") == "uses 0"
    with pytest.raises(UsageError, match=r"has no chat template 'rag'; give one of: default, tool_use$"):
        several.render([ASKED], template="rag")
    assert read_chat_format(write(tmp_path, chat_template="entry")).render([ASKED]) == "entry"
    file = read_chat_format(write(tmp_path, "the file {{ tools | length }}", chat_template=named))
    assert file.render([ASKED], tools=[CLOCK]) == "the file 1"
    (tmp_path / "chat_template.jinja").unlink()
    only = read_chat_format(write(tmp_path, chat_template=[{"name": "rag", "template": "x"}]))
    with pytest.raises(UsageError, match="has several chat templates and none is named default; give one of: rag"):
        only.render([ASKED])


ENTRY = [{"name": "default", "template": "entry"}, {"name": "rag", "template": "entry rag"}]


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        ({}, "entry"),
        ({}, ENTRY),
        ({"chat_template.jinja": "file"}, ENTRY),
        ({"chat_template.jinja": "file", f"{TEMPLATE_FOLDER}/rag.jinja": "the file rag"}, ENTRY),
        ({f"{TEMPLATE_FOLDER}/rag.jinja": "only rag", f"{TEMPLATE_FOLDER}/x.y.jinja": "dots"}, "entry"),
        ({"chat_template.jinja": "file", f"{TEMPLATE_FOLDER}/default.jinja": "default"}, None),
    ],
)
def test_templates_of_a_folder_equal_transformers(tmp_path: Path, files: dict[str, str], entry: Any) -> None:
    import transformers

    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINTS / "tiny-qwen2", folder, ignore=shutil.ignore_patterns("*.safetensors", "*.jinja"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": entry}))
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    expected = transformers.AutoTokenizer.from_pretrained(folder).chat_template
    found = read_chat_format(folder).templates
    assert found == ({"default": expected} if isinstance(expected, str) else expected)


def test_special_tokens_are_the_files(tmp_path: Path) -> None:
    write(tmp_path, bos_token={"content": "<s>"}, eos_token="</s>", unk_token=None, add_bos_token=True)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<end>", "additional_special_tokens": ["a"]}')
    assert read_chat_format(tmp_path).special_tokens == {"bos_token": "<s>", "eos_token": "<end>"}


@pytest.mark.parametrize("name", [*FAMILIES, "tiny-qwen2-sst2"])
def test_special_tokens_equal_transformers(tokenizers: Callable[[str], Any], name: str) -> None:
    assert read_chat_format(CHECKPOINTS / name).special_tokens == tokenizers(name).special_tokens_map


@pytest.mark.parametrize("entry", [3, ["x"], [{"name": "default"}], {"default": 3}])
def test_a_template_of_another_type(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(ArtifactError, match="chat_template is neither a string nor a list of templates with names"):
        read_chat_format(write(tmp_path, chat_template=entry))


def test_a_template_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(
        ArtifactError, match=r"chat_template.jinja cannot be read \('utf-8' codec .*export the model again"
    ):
        read_chat_format(tmp_path)
