"""A hub on this machine that huggingface_hub talks to, and two artifacts of one tiny checkpoint."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from intaglio import QuantizeOptions, quantize
from intaglio.tests import tiny
from intaglio.tests.publishing.hub_server import Hub, serving

CARD = "---\nlicense: other\nlicense_name: exaone\nlanguage: [en, ko]\n---\n# The source\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty hub; the token ``hf_writer`` of ``org`` is logged in, and the cache is empty."""
    with serving() as server:
        server.tokens["hf_writer"] = {"org"}
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        yield server


@pytest.fixture
def go_offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that sets HF_HUB_OFFLINE."""
    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a card and terms."""
    values = tiny.config("qwen2", num_hidden_layers=1, id2label={"0": "a"}, label2id={"a": 0})
    folder = tiny.write(tmp_path_factory.mktemp("made") / "tiny-qwen2", values, tokenizer=True)
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_text("the terms")
    return folder


@pytest.fixture(scope="session")
def int4(source: Path) -> Path:
    quantize(source, out := source.with_name("int4"), precision="int4", options=QuantizeOptions(method="rtn"))
    return out


@pytest.fixture(scope="session")
def int8(source: Path) -> Path:
    quantize(source, out := source.with_name("int8"), precision="int8", options=QuantizeOptions(method="rtn"))
    return out
