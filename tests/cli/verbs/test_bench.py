"""``intaglio bench``: its measurements and its output."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from intaglio.cli.main import cli
from intaglio.cli.verbs import bench
from intaglio.runtime import kernels
from intaglio.tests.cli.conftest import MakeArtifact, Run
from intaglio.tests.runtime import fakes

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "tiny-qwen2"
SHORT = ("--prompt-tokens", 8, "--new-tokens", 24, "--repeats", 2, "--threads", 1)


@pytest.fixture(scope="module")
def int4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "int4"
    made = CliRunner().invoke(cli, ["quantize", str(CHECKPOINT), str(out), "--method", "rtn", "--no-parity"])
    assert made.exit_code == 0, made.stderr
    return out


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    table = np.random.default_rng(0).normal(size=(fakes.VOCAB, 3))
    return fakes.head(tmp_path / "head", "text-classification", table)


def test_a_text_generation_artifact(run: Run, int4: Path) -> None:
    printed = json.loads(run("bench", int4, *SHORT, "--json").stdout)
    assert (printed["artifact"], printed["task"], printed["precision"]) == (str(int4), "text-generation", "int4")
    assert (printed["device"], printed["threads"], printed["repeats"]) == ("cpu", 1, 2)
    assert (printed["prompt_tokens"], printed["new_tokens"]) == (8, 24)
    assert printed["load_seconds"] > 0
    for name in ("prefill_tokens_per_second", "first_token_seconds"):
        figures = printed[name]
        assert 0 < figures["least"] <= figures["median"] <= figures["most"], name
    assert printed["peak_rss_bytes"] >= printed["rss_bytes_before_loading"] > 0


@pytest.mark.skipif(kernels.instructions() is None, reason="no compiled kernels for this processor")
def test_the_kernels_are_named(run: Run, int4: Path) -> None:
    line = run("bench", int4, *SHORT).stdout.splitlines()[3]
    assert line.startswith(f"kernels      intaglio's for MatMulNBits ({kernels.instructions()})")
    assert line.endswith(", otherwise ONNX Runtime's")
    printed = json.loads(run("bench", int4, *SHORT, "--json").stdout)
    assert (printed["own_kernels"][0], printed["instructions"]) == ("MatMulNBits", kernels.instructions())


def test_onnxruntimes_kernels_can_be_chosen(run: Run, int4: Path) -> None:
    lines = run("bench", int4, *SHORT, "--kernels", "onnxruntime").stdout.splitlines()
    assert "kernels      ONNX Runtime's" in lines
    printed = json.loads(run("bench", int4, *SHORT, "--kernels", "onnxruntime", "--json").stdout)
    assert (printed["own_kernels"], printed["instructions"]) == ([], None)


def test_a_head(run: Run, classifier: Path) -> None:
    result = run("bench", classifier, "--prompt-tokens", 4, "--repeats", 1, "--threads", 1)
    assert (result.exit_code, result.stderr) == (0, "")
    names = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert names == ["artifact", "model", "runs on", "kernels", "load", "speed", "memory"]
    assert " sentences/s (" in result.stdout
    assert result.stdout.splitlines()[5].endswith(", 4 tokens, batch size 16")
    printed = json.loads(run("bench", classifier, "--prompt-tokens", 4, "--repeats", 1, "--json").stdout)
    assert (printed["sentences"], printed["sentence_tokens"], printed["batch_size"]) == (64, 4, 16)
    assert printed["sentences_per_second"]["median"] > 0


def test_printed_summary() -> None:
    printed = {
        "artifact": "out",
        "family": "qwen2",
        "task": "text-generation",
        "precision": "int4",
        "device": "cpu",
        "threads": 2,
        "own_kernels": ["MatMulNBits", "GroupQueryAttention"],
        "instructions": "AVX2",
        "load_seconds": 0.384,
        "prompt_tokens": 512,
        "new_tokens": 1280,
        "prefill_tokens_per_second": {"median": 1312.4, "least": 999.5, "most": 1400.0},
        "first_token_seconds": {"median": 0.0391, "least": 0.03, "most": 1.234},
        "decode_tokens_per_second": {"median": 58.26, "least": 57.91, "most": 58.6},
        "peak_rss_bytes": 561_000_000,
        "rss_bytes_before_loading": 81_000_000,
    }
    assert bench._facts(printed) == [
        ("artifact", "out"),
        ("model", "qwen2, text-generation, int4"),
        ("runs on", "cpu, 2 threads"),
        ("kernels", "intaglio's for MatMulNBits (AVX2) and GroupQueryAttention, otherwise ONNX Runtime's"),
        ("load", "0.38 s"),
        ("prefill", "1,312 tokens/s (1,000 to 1,400), 512 tokens"),
        ("first token", "0.0391 s (0.03 to 1.23)"),
        ("decode", "58.3 tokens/s (57.9 to 58.6), 1,280 tokens"),
        ("memory", "561 MB peak, 81 MB before loading"),
    ]
    assert bench._kernels([], None) == "ONNX Runtime's"
    assert bench._kernels(["MatMulNBits", "QMoE", "GroupQueryAttention"], "AVX2") == (
        "intaglio's for MatMulNBits (AVX2), QMoE and GroupQueryAttention, otherwise ONNX Runtime's"
    )
    assert (
        bench._kernels(["GroupQueryAttention"], None) == "intaglio's for GroupQueryAttention, otherwise ONNX Runtime's"
    )
    quick = bench._facts(printed | {"decode_tokens_per_second": None, "peak_rss_bytes": None, "threads": 1})
    assert quick[2] == ("runs on", "cpu, 1 thread")
    assert quick[-1] == ("decode", "too fast to measure with so few tokens, 1,280 tokens")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--prompt-tokens", "1000000"),
            "a prompt of 1,000,000 tokens leaves no room in the model's context; give fewer",
        ),
        (("--new-tokens", "1"), "Invalid value for '--new-tokens'"),
        (("--repeats", "0"), "Invalid value for '--repeats'"),
        (("--kernels", "fast"), "Invalid value for '--kernels'"),
    ],
)
def test_bad_usage(run: Run, int4: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("bench", int4, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_head_generates_nothing(run: Run, make_artifact: MakeArtifact) -> None:
    folder = make_artifact(task="text-classification")
    result = run("bench", folder, "--new-tokens", 5)
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: {folder} is a text-classification artifact and does not generate tokens; leave out --new-tokens\n",
    )


def test_an_int8_kv_cache(run: Run, int4: Path) -> None:
    printed = json.loads(run("bench", int4, *SHORT, "--json").stdout)
    if "GroupQueryAttention" not in printed["own_kernels"]:
        pytest.skip("no compiled kernels for this processor")
    assert printed["kv_cache"] == "float32"
    printed = json.loads(run("bench", int4, *SHORT, "--kv-cache", "int8", "--json").stdout)
    assert (printed["kv_cache"], printed["own_kernels"]) == ("int8", ["MatMulNBits", "GroupQueryAttentionInt8"])


def test_a_kv_cache_that_is_chosen(run: Run, int4: Path) -> None:
    printed = run("bench", int4, *SHORT, "--kv-cache", "auto").stdout
    if "GroupQueryAttention" not in printed:
        pytest.skip("no compiled kernels for this processor")
    (line,) = (line for line in printed.splitlines() if line.startswith("KV cache"))
    assert re.fullmatch(r"KV cache +float32, for 1 text of \d+ tokens fit into memory, and int8 is .*", line)
