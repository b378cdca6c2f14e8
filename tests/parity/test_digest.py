"""The digest covers the files that a checkpoint is read from, and not their names where these say nothing."""

from pathlib import Path

import pytest
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.digest import Digest
from intaglio.tests import tiny
from intaglio.tests.exporter.stored.grids import EVERY, Kind, by_end, install
from intaglio.tests.models.gguf import make


def digest(source: Path) -> str:
    with Digest(Checkpoint(source)) as found:
        return found.wait(lambda stage, done, total: None)


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json"])
def test_settings_in_a_file_of_their_own(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a checkpoint that is not quantized, such a file is not read."""
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2"))
    plain = digest(folder)
    (folder / name).write_text('{"bits": 4}', encoding="utf-8")
    assert digest(folder) == plain
    install(monkeypatch, by_end(dict.fromkeys(EVERY, Kind())))
    first = digest(folder)
    (folder / name).write_text('{"bits": 8}', encoding="utf-8")
    assert len({plain, first, digest(folder)}) == 3


def test_a_gguf_file_may_be_renamed(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    make.write(path, make.config("qwen2"), "Q4_0")
    before = digest(path)
    assert digest(path.rename(tmp_path / "another.gguf")) == before
