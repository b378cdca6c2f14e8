"""The public names: what ``import intaglio`` and its packages offer, and what an import costs."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import intaglio
import pytest

ROOT = Path(__file__).parent.parent
PUBLIC = {
    "intaglio": [
        "Adapter",
        "CheckOptions",
        "Embedder",
        "IntaglioError",
        "QuantizeOptions",
        "QuestionAnswerer",
        "Report",
        "SequenceClassifier",
        "TextGenerator",
        "TokenClassifier",
        "__version__",
        "check",
        "export",
        "load",
        "push",
        "quantize",
    ],
    "intaglio.exporter": ["Adapter", "QuantizeOptions", "export", "quantize"],
    "intaglio.parity": ["CheckOptions", "Report", "check", "record", "render"],
    "intaglio.publishing": ["Pushed", "PushedFile", "preview", "push"],
    "intaglio.runtime": [
        "Answer",
        "BrokenToolCall",
        "Candidate",
        "ChatEvent",
        "ChatReply",
        "ChatStream",
        "Classification",
        "Conversation",
        "Embedder",
        "Event",
        "Generation",
        "QuestionAnswerer",
        "Scheduler",
        "Score",
        "SequenceClassifier",
        "Tag",
        "TextGenerator",
        "TokenClassifier",
        "TokenLogprob",
        "ToolCall",
        "ToolResult",
        "ToolRun",
        "load",
        "run_tools",
    ],
}


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names(package: str) -> None:
    module = import_module(package)
    assert module.__all__ == PUBLIC[package]
    assert [name for name in PUBLIC[package] if getattr(module, name, None) is None] == []


def test_a_name_at_the_root_is_the_one_of_its_package() -> None:
    from intaglio.exporter import Adapter, QuantizeOptions, export, quantize
    from intaglio.parity import check
    from intaglio.publishing import push
    from intaglio.runtime import TextGenerator, load

    assert intaglio.export is export
    assert intaglio.quantize is quantize
    assert intaglio.QuantizeOptions is QuantizeOptions
    assert intaglio.Adapter is Adapter
    assert intaglio.check is check
    assert intaglio.load is load
    assert intaglio.push is push
    assert intaglio.TextGenerator is TextGenerator


def test_completion_lists_the_public_names() -> None:
    assert set(PUBLIC["intaglio"]) <= set(dir(intaglio))


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match=r"^module 'intaglio' has no attribute 'exports'$"):
        getattr(intaglio, "exports")  # noqa: B009


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".dev")}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT.anchor, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["export", "quantize", "check", "QuantizeOptions"])
def test_a_missing_extra_is_named(name: str) -> None:
    done = run(f"import sys; sys.modules['torch'] = None; from intaglio import {name}")
    assert done.stderr.splitlines()[-1] == (
        "intaglio.errors.DependencyError: reading checkpoints needs the package torch, which is not installed; "
        "install it with: pip install 'intaglio[export]'"
    )


def test_load_needs_no_torch() -> None:
    done = run("import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None; from intaglio import load")
    assert (done.returncode, done.stderr) == (0, "")
