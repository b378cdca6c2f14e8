"""A folder with the checkpoints and artifacts that the pages name, made from the tiny checkpoints."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import intaglio
import pytest
from intaglio.artifact import Task
from intaglio.tests import tiny
from intaglio.tests.serving.live import live_server

from .pages import ROOT, blocks

CHECKPOINTS = ROOT / "tests" / "checkpoints"
Workplace = Callable[[Path], Path]

_WRITES = re.compile(r"""\b(?:export|quantize)\([^)]*?,\s*"([^"]+)\"""")


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of an artifact that the pages name; it is made once."""
    place = tmp_path_factory.mktemp("artifacts")

    def random_checkpoint(task: Task, **changes: Any) -> Path:
        folder = place / f"random-{task}"
        folder.mkdir()
        return tiny.write(folder, tiny.config("qwen2", task, **changes), tokenizer=True)

    @cache
    def make(name: str) -> Path:
        out = place / name
        match name:
            case "smaller":
                return make("out")
            case "out":
                intaglio.export(CHECKPOINTS / "tiny-qwen2", out)
            case "out-int4":
                intaglio.quantize(
                    CHECKPOINTS / "tiny-qwen2", out, options=intaglio.QuantizeOptions(method="rtn", block_size=32)
                )
            case "sentiment":
                intaglio.export(CHECKPOINTS / "tiny-qwen2-sst2", out)
            case "tagger":
                intaglio.export(random_checkpoint("token-classification"), out)
            case "reranker":
                intaglio.export(random_checkpoint("text-classification", id2label={"0": "relevance"}), out)
            case "reader":
                intaglio.export(random_checkpoint("question-answering"), out)
            case "encoder":
                intaglio.export(CHECKPOINTS / "tiny-qwen2", out, task="feature-extraction")
            case _:
                raise AssertionError(f"the pages name an artifact {name!r}, which no fixture makes")
        return out

    return make


@pytest.fixture(scope="session")
def served(artifact: Callable[[str], Path]) -> Iterator[str]:
    """The address of a server of the artifacts that the pages about it name."""
    names = ("out", "encoder", "sentiment", "reranker", "tagger", "reader")
    with live_server({name: artifact(name) for name in names}) as address:
        yield address


@pytest.fixture
def workplace(tmp_path: Path, artifact: Callable[[str], Path]) -> Workplace:
    """Return a folder that holds what a page's blocks read: the checkpoints, and the artifacts it does not write."""

    def prepare(page: Path) -> Path:
        for name, checkpoint in (("qwen2-0.5b", "tiny-qwen2"), ("my-classifier", "tiny-qwen2-sst2")):
            (tmp_path / name).symlink_to(CHECKPOINTS / checkpoint)
        (tmp_path / "tests").symlink_to(ROOT / "tests")
        code = "\n".join(block.text for block in blocks(page, "python"))
        known = {"out", "smaller", "out-int4", "sentiment", "tagger", "reader", "encoder", "reranker"}
        for name in (known & set(re.findall(r'"([\w-]+)"', code))) - set(_WRITES.findall(code)):
            (tmp_path / name).symlink_to(artifact(name))
        return tmp_path

    return prepare
