"""``intaglio quantize``: the options passed to the exporter, the output, and the state after an interruption."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import intaglio.exporter
import pytest
from intaglio.artifact import Manifest, read_manifest
from intaglio.cli import making
from intaglio.cli.options import CALIBRATION_NAMES
from intaglio.cli.verbs import quantize as quantize_module
from intaglio.exporter import QuantizeOptions
from intaglio.exporter.quantize import options
from intaglio.exporter.quantize.formats import blocks
from intaglio.exporter.quantize.texts import names
from intaglio.tests import tiny
from intaglio.tests.cli.conftest import MakeArtifact, Run

Asked = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def asked(make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Replace the exporter by one that returns a made-up manifest; return the list of its calls."""
    calls: Asked = []
    manifest = read_manifest(make_artifact("answer"))

    def quantize(*arguments: Any, **keywords: Any) -> Manifest:
        calls.append((arguments, keywords))
        keywords["progress"]("graph", 2, 2)
        return manifest

    monkeypatch.setattr(intaglio.exporter, "quantize", quantize)
    monkeypatch.setattr(making, "_record_parity", lambda *_: "faithful")
    return calls


def test_the_choices_are_the_exporters() -> None:
    assert options.METHODS == quantize_module.METHODS
    assert set(options.QUANTIZED) == set(quantize_module.QUANTIZED)
    assert blocks.BLOCK_SIZES == quantize_module.BLOCK_SIZES
    assert (names.DEFAULT, names.SELF) == CALIBRATION_NAMES


def test_without_options_the_defaults_are_the_exporters(run: Run, asked: Asked) -> None:
    assert run("quantize", "source", "out").exit_code == 0
    (arguments, keywords), *others = asked
    assert not others
    assert arguments == ("source", Path("out"))
    assert callable(keywords.pop("progress"))
    assert keywords == {
        "precision": "int4",
        "options": QuantizeOptions(),
        "task": "auto",
        "target": "ort",
        "device": None,
        "attention": None,
        "ignore_auto_map": False,
        "ignore_adapter": False,
        "adapters": [],
        "generation_config": None,
        "ignore_generation_keys": (),
        "revision": None,
        "force": False,
    }


def test_every_option_reaches_the_exporter(run: Run, asked: Asked) -> None:
    result = run(
        *("quantize", "org/name", "out", "--precision", "int8", "--method", "gptq", "--block-size", 64),
        *("--calibration", "text.txt", "--calibration", "self", "--windows", 7, "--target-size", "330MB"),
        *("--activations", "bf16", "--bits", "4,8", "--resume"),
        *("--keep", "*.v_proj=int8", "--keep", "lm_head=float", "--keep", "*.v_proj=int4"),
        *(
            "--task",
            "text-generation",
            "--target",
            "standard",
            "--for",
            "webgpu",
            "--revision",
            "v1",
            "--force",
            "--json",
        ),
        *("--attention", "causal", "--ignore-auto-map", "--ignore-adapter", "--generation-config", "own.json"),
        *("--ignore-generation-key", "top_k", "--ignore-generation-key", "top_p"),
    )
    assert result.exit_code == 0, result.stderr
    keywords = asked[0][1]
    del keywords["progress"]
    assert keywords == {
        "precision": "int8",
        "options": QuantizeOptions(
            method="gptq",
            block_size=64,
            bits=(4, 8),
            calibration=(Path("text.txt"), "self"),
            windows=7,
            keep={"lm_head": "float", "*.v_proj": "int4"},
            target_size=330_000_000,
            activations="bf16",
            resume=True,
        ),
        "task": "text-generation",
        "target": "standard",
        "device": "webgpu",
        "attention": "causal",
        "ignore_auto_map": True,
        "ignore_adapter": True,
        "adapters": [],
        "generation_config": Path("own.json"),
        "ignore_generation_keys": ("top_k", "top_p"),
        "revision": "v1",
        "force": True,
    }
    # The last match wins, so the order of the patterns matters.
    assert list(keywords["options"].keep) == ["lm_head", "*.v_proj"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("300MB", 300_000_000),
        ("1.2GB", 1_200_000_000),
        ("1.2 gb", 1_200_000_000),
        ("314572800", 314_572_800),
        ("314572800B", 314_572_800),
        ("512kB", 512_000),
        ("300MiB", 314_572_800),
        ("0", 0),
    ],
)
def test_valid_sizes(run: Run, asked: Asked, text: str, size: int) -> None:
    assert run("quantize", "source", "out", "--target-size", text).exit_code == 0
    assert asked[0][1]["options"].target_size == size


@pytest.mark.parametrize("text", ["", "MB", "300 apples", "-5MB", "1,2GB", "1e9", "300M B", "3.MB"])
def test_invalid_sizes(run: Run, asked: Asked, text: str) -> None:
    result = run("quantize", "source", "out", "--target-size", text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Invalid value for '--target-size': " in result.stderr
    assert f"{text!r} is not a size; write it like 300MB, 1.2GB or 314572800." in " ".join(result.stderr.split())
    assert not asked


@pytest.mark.parametrize("text", ["lm_head", "=int8", "lm_head=", "="])
def test_invalid_patterns_for_keep(run: Run, asked: Asked, text: str) -> None:
    result = run("quantize", "source", "out", "--keep", text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for '--keep': {text!r} is not PATTERN=PRECISION" in result.stderr
    assert "write it like 'lm_head=float'." in result.stderr
    assert not asked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--precision", "int3"), "Invalid value for '--precision': 'int3' is not one of 'int4', 'int8'."),
        (("--precision", "fp16"), "Invalid value for '--precision'"),
        (
            ("--method", "nf4"),
            "Invalid value for '--method': 'nf4' is not one of 'auto', 'rtn', 'gptq', 'awq', 'smoothquant'.",
        ),
        (("--windows", "0"), "Invalid value for '--windows'"),
        (("--activations", "int8"), "Invalid value for '--activations'"),
        (
            ("--block-size", "48"),
            "Error: block size 48 is not one that ONNX Runtime's kernels take; choose one of 16, 32",
        ),
        (
            ("--keep", "lm_head=int3"),
            "Error: --keep lm_head=int3: 'int3' is not a precision; choose one of float, int8",
        ),
        (("--bits", "4;8"), "Invalid value for '--bits': '4;8' is not a list of numbers; write it like 4,8."),
        (("--bits", "4,6"), "Error: bits are 4, 6; choose from 4, 5, 8, with 4 among them"),
        (("--target-kl", "-1"), "Error: target KL is -1.0; it is a number of nats per token above 0, such as 0.05"),
        (
            ("--target-kl", "0.1", "--target-size", "1GB"),
            "Error: target size and target KL are both given; the mix can aim at one: leave the other out",
        ),
    ],
)
def test_invalid_options(run: Run, asked: Asked, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("quantize", tmp_path, tmp_path / "out", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not asked


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantize") / "source"
    return tiny.write(folder, tiny.config("qwen2", num_hidden_layers=1), tokenizer=True)


def test_a_quantized_artifact_is_summarized_verified_inspected_and_run(run: Run, source: Path) -> None:
    out = source.parent / "out"
    result = run("quantize", source, out, "--windows", 4, "--json", "--no-parity")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert (printed["task"], printed["precision"], printed["target"]) == ("text-generation", "int4", "ort")
    assert list(printed["stages"]) == ["sensitivity", "calibration", "graph", "weights", "source"]
    assert 0 < sum(printed["stages"].values()) <= printed["seconds"] + 0.01
    assert 4 < printed["bits_per_weight"] < 6
    assert printed["estimated_kl"] > 0
    assert run("verify", out).exit_code == 0
    seen = json.loads(run("inspect", out, "--json").stdout)
    assert seen["parameters"] == json.loads(run("inspect", source, "--json").stdout)["parameters"]
    assert seen["bits_per_weight"] == printed["bits_per_weight"]
    assert seen["estimated_kl"] == pytest.approx(sum(w["quantization"]["damage"] for w in seen["weights"]))
    assert run("generate", out, "The stone", "--max-new-tokens", 4).exit_code == 0


def test_the_summary_as_text(run: Run, source: Path) -> None:
    out = source.parent / "told"
    result = run("export", source, out, "--precision", "int8", "--no-parity")
    assert result.exit_code == 0, result.stderr
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines() if line.strip() and line[0] != " ")
    assert lines["artifact"].strip() == str(out)
    assert lines["model"].strip() == "qwen2, text-generation, int8, target ort"
    assert lines["weights"].strip() == "int8: 9 weights, blocks of 16 (7) and 32 (2)"
    assert " bits per weight\n" in result.stdout
    assert "KL" not in lines  # not measured
    second = r"\d+\.\d s"
    assert re.fullmatch(rf" *{second}: graph {second}, weights {second}, source {second}", lines["time"])


def test_a_quantized_source_is_refused_and_nothing_is_left(run: Run, source: Path) -> None:
    out = source.parent / "once"
    assert run("quantize", source, out, "--method", "rtn", "--no-parity").exit_code == 0
    before = sorted(path.name for path in source.parent.iterdir())
    result = run("quantize", out, source.parent / "twice")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: {out} is quantized already, to int4; quantize the checkpoint it was made from (source) "
        "or its unquantized artifact\n"
    )
    assert sorted(path.name for path in source.parent.iterdir()) == before


@pytest.mark.parametrize("resume", [False, True])
def test_an_interruption(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool) -> None:
    @contextmanager
    def interrupt() -> Iterator[Callable[[str, int, int], None]]:
        def report(stage: str, done: int, total: int) -> None:
            if stage == "calibration" and done > 0.7 * total:
                raise KeyboardInterrupt

        yield report

    monkeypatch.setattr(making, "progress", interrupt)
    folder = tiny.write(tmp_path / "source", tiny.config("qwen2", num_hidden_layers=2), tokenizer=True)
    result = run("quantize", folder, tmp_path / "out", "--windows", 4, *(["--resume"] if resume else []))
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ([".out.intaglio-layers"] if resume else []) + ["source"]
