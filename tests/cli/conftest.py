"""An artifact folder without a real graph, and the command line run inside this process."""

import io
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from intaglio.artifact import MANIFEST, FileEntry, Manifest, ModelFacts, Source, TensorEntry, graph_name, sha256_file
from intaglio.cli.main import cli

# A shell starts background jobs with Ctrl-C ignored, and the commands that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Run = Callable[..., Result]
MakeArtifact = Callable[..., Path]


class FakeTerminal(io.StringIO):
    """A standard stream that is a terminal and keeps what is written."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run() -> Run:
    """Return a function: ``run("verify", folder)`` returns ``stdout``, ``stderr`` and ``exit_code``."""

    def invoke(*arguments: object, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, prog_name="intaglio")

    return invoke


@pytest.fixture
def make_artifact(tmp_path: Path) -> MakeArtifact:
    """Return a function that writes a folder with a valid manifest and an invalid graph, which no test opens."""

    def make(name: str = "out", task: str = "text-generation", **facts: Any) -> Path:
        folder = tmp_path / name
        graph = folder / graph_name("fp32", facts.get("cache_dtype", "float32"))
        graph.parent.mkdir(parents=True)
        graph.write_bytes(b"no graph")
        graph.with_name(f"{graph.name}_data").write_bytes(bytes(range(256)) * 16)
        (folder / "config.json").write_text(json.dumps({"model_type": "exaone4"}))
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        files = {p.relative_to(folder).as_posix(): FileEntry(sha256_file(p), p.stat().st_size) for p in paths}
        model = ModelFacts(
            **{
                "vocab_size": 4096,
                "hidden_size": 64,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "layer_windows": (32, 32, 32, None),
                "context_length": 8192,
                "cache_dtype": "float32",
                **facts,
            }
        )
        manifest = Manifest(
            family="exaone4",
            task=task,  # type: ignore[arg-type]
            target="ort",
            precision="fp32",
            source=Source("org/tiny", "0" * 40, "d" * 64),
            model=model,
            tensors={
                "embed": TensorEntry("fp32", (4096, 64), ("model.embed_tokens.weight",)),
                "norm": TensorEntry("fp32", (64,), ("model.norm.weight",)),
                "shape": TensorEntry("int64", (3,), ()),
            },
            operators={"MatMul": 12, "com.microsoft::GroupQueryAttention": 4},
            tools={"intaglio": "0.1.0"},
            files=files,
        )
        (folder / MANIFEST).write_text(manifest.to_json())
        return folder

    return make
