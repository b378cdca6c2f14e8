"""What an artifact takes over of its source's model card and terms."""

import json
from pathlib import Path

import pytest
from intaglio import export
from intaglio.artifact import SourceCard, read_manifest
from intaglio.exporter.companions.source_card import read_source_card
from intaglio.tests import tiny

EXAONE = """---
license: other
license_name: exaone
license_link: LICENSE
language:
- en
- ko
pipeline_tag: text-generation
---
# A model
"""


def card(folder: Path, text: str) -> SourceCard | None:
    (folder / "README.md").write_text(text, encoding="utf-8")
    return read_source_card(folder)


def test_the_terms_and_languages_of_a_card(tmp_path: Path) -> None:
    assert card(tmp_path, EXAONE) == SourceCard("other", "exaone", "LICENSE", ("en", "ko"))
    assert card(tmp_path, "---\nlicense: apache-2.0\nlanguage: en\n---\n") == SourceCard(
        "apache-2.0", None, None, ("en",)
    )
    (tmp_path / "LICENSE.md").write_text("terms")
    assert card(tmp_path, "no front matter") == SourceCard(None, None, "LICENSE.md", ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no front matter\n---\nlicense: mit\n---\n",
        "---\n- a list\n---\n",
        "---\nlicense: [mit\n---\n",
        "---\nlicense: 'mit\\nbase_model: x'\n---\n",
        "---\nlicense: {a: b}\nlicense_name: [1]\nlanguage: {en: 1}\n---\n",
        "---\nlanguage: [no, yes, 3, '../en']\n---\n",
        '---\nlicense_name: "two\\nlines"\nlicense_link: "\\u202eLICENSE"\n---\n',
        "---\nignore_metadata_errors: 1\nlicense: mit\n---\n",
        "---\n" + "[" * 5000 + "\n---\n",
    ],
    ids=range(10),
)
def test_a_card_that_declares_nothing_or_cannot_be_read(tmp_path: Path, text: str) -> None:
    assert card(tmp_path, text) is None


def test_a_card_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert read_source_card(tmp_path) is None
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").mkdir()
    assert read_source_card(tmp_path) is None


def test_an_artifact_keeps_the_terms(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "source", tiny.config("qwen2"))
    export(source, tmp_path / "plain")
    assert "card" not in json.loads((tmp_path / "plain" / "intaglio.json").read_text())["source"]
    (source / "README.md").write_text(EXAONE)
    (source / "LICENSE").write_text("EXAONE AI Model License Agreement")
    (source / "NOTICE.txt").write_text("notice")
    export(source, tmp_path / "out")
    export(tmp_path / "out", tmp_path / "int8", precision="int8")
    for folder in (tmp_path / "out", tmp_path / "int8"):
        assert read_manifest(folder).source.card == SourceCard("other", "exaone", "LICENSE", ("en", "ko"))
        assert (folder / "LICENSE").read_text() == "EXAONE AI Model License Agreement"
        assert {"LICENSE", "NOTICE.txt"} <= set(read_manifest(folder).files)
        assert not (folder / "README.md").exists()
