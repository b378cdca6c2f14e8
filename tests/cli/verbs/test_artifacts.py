"""From a checkpoint to printed text with real artifacts: tiny random models, exported by the command itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from click.testing import CliRunner
from intaglio.cli.main import cli
from intaglio.runtime import load
from intaglio.tests import tiny
from intaglio.tests.cli.conftest import Run
from intaglio.tests.files.artifact_files import contents

ROOT = Path(__file__).parents[3]
CASES = {
    "text-generation": ("exaone4", "ort"),
    "text-classification": ("qwen2", "ort"),
    "token-classification": ("exaone4", "standard"),
    "question-answering": ("qwen2", "standard"),
    "feature-extraction": ("qwen2", "ort"),
}
Made = dict[str, tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return for each task an artifact and the output of the `intaglio export --json` that wrote it."""
    folder = tmp_path_factory.mktemp("artifacts")
    found = {}
    for task, (family, target) in CASES.items():
        source = tiny.write(folder / f"{task}-source", tiny.config(family, task), tokenizer=True)
        out = folder / task
        result = CliRunner().invoke(cli, ["export", str(source), str(out), "--target", target, "--json", "--no-parity"])
        assert result.exit_code == 0, result.stderr
        found[task] = (out, json.loads(result.stdout))
    return found


@pytest.mark.parametrize("task", CASES)
def test_export_prints_a_summary(made: Made, task: str) -> None:
    out, printed = made[task]
    family, target = CASES[task]
    assert printed["artifact"] == str(out)
    assert (printed["family"], printed["task"], printed["target"], printed["precision"]) == (
        family,
        task,
        target,
        "fp32",
    )
    assert printed["source"] == {"id": f"{task}-source", "revision": None}
    assert printed["bytes"] == sum(len(content) for name, content in contents(out).items() if name != "intaglio.json")
    assert printed["seconds"] > 0
    assert printed["peak_rss_bytes"] > printed["bytes"]


@pytest.mark.parametrize("task", CASES)
def test_exported_artifacts_verify_and_inspect(run: Run, made: Made, task: str) -> None:
    out, printed = made[task]
    assert run("verify", out).exit_code == 0
    seen = json.loads(run("inspect", out, "--json").stdout)
    source = json.loads(run("inspect", out.parent / f"{task}-source", "--json").stdout)
    assert (seen["family"], seen["task"], seen["target"]) == (printed["family"], printed["task"], printed["target"])
    for key in ("vocab_size", "layer_windows", "context_length", "labels"):
        assert seen[key] == source[key], key
    attention = "com.microsoft::GroupQueryAttention" if printed["target"] == "ort" else "Attention"
    assert seen["operators"][attention] == 4


def test_generate_prints_what_the_runtime_generates(run: Run, made: Made) -> None:
    out, _ = made["text-generation"]
    expected = load(out).generate("The stone", max_new_tokens=12)  # type: ignore[union-attr]
    printed = json.loads(run("generate", out, "The stone", "--max-new-tokens", 12, "--json").stdout)
    assert printed["text"] == expected.text
    assert printed["token_ids"] == list(expected.token_ids)
    assert len(printed["token_ids"]) == 12
    assert run("generate", out, "The stone", "--max-new-tokens", 12).stdout == expected.text + "\n"


def test_score_prints_what_the_runtime_scores(run: Run, made: Made) -> None:
    out, _ = made["text-generation"]
    expected = load(out).score("the stone", context="In ")  # type: ignore[union-attr]
    printed = json.loads(run("score", out, "the stone", "--context", "In ", "--json").stdout)
    assert printed["logprobs"] == pytest.approx(expected.logprobs, abs=1e-5)
    assert printed["tokens"] == list(expected.tokens)
    lines = run("score", out, "the stone", "--context", "In ").stdout.splitlines()
    assert [int(line.split("\t")[0]) for line in lines] == list(expected.token_ids)


def test_generate_follows_a_constraint(run: Run, made: Made) -> None:
    out, _ = made["text-generation"]
    assert run("generate", out, "It was built in ", "--regex", "1[0-9]{3}").stdout[:-1].isdigit()
    schema = '{"enum": ["yes", "no"]}'
    assert run("generate", out, "Is it so? ", "--json-schema", "-", stdin=schema).stdout in ('"yes"\n', '"no"\n')
    refused = run("generate", out, "x", "--json-schema", "-", stdin="{")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Error: the JSON schema is not JSON (")


def test_classify(run: Run, made: Made) -> None:
    out, _ = made["text-classification"]
    first, second = json.loads(run("classify", out, "The stone", "A question", "--json").stdout)
    assert set(first["scores"]) == {"bad", "fair", "good"}
    assert sum(second["scores"].values()) == pytest.approx(1)
    assert first["score"] == max(first["scores"].values())
    line = run("classify", out, "The stone").stdout
    assert line == f"{first['label']}\t{first['score']:.4f}\tThe stone\n"


def test_tag(run: Run, made: Made) -> None:
    out, _ = made["token-classification"]
    text = "The stone"
    rows = [line.split("\t") for line in run("tag", out, text).stdout.splitlines()]
    assert rows
    for _, label, _, start, end, word in rows:
        assert label in ("bad", "fair", "good")
        assert text[int(start) : int(end)] == word


def test_answer(run: Run, made: Made) -> None:
    out, _ = made["question-answering"]
    context = "The stone is in the seal."
    answers = json.loads(
        run("answer", out, "--question", "Where?", "--context", context, "--top-k", 2, "--json").stdout
    )
    assert len(answers) == 2
    for answer in answers:
        assert context[answer["start"] : answer["end"]] == answer["text"] != ""


def test_embed(run: Run, made: Made, tmp_path: Path) -> None:
    out, _ = made["feature-extraction"]
    assert run("embed", out, "The stone", "A seal", "--npy", tmp_path / "v.npy").exit_code == 0
    vectors = numpy.load(tmp_path / "v.npy")
    assert vectors.shape == (2, 64)
    assert numpy.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-6)
    printed = [line.split("\t") for line in run("embed", out, "The stone", "A seal").stdout.splitlines()]
    assert numpy.array(printed, numpy.float64) == pytest.approx(vectors, abs=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "text-generation-source", "{tmp}/out", "--json", "--no-parity"),
        ("generate", "text-generation", "The stone", "--max-new-tokens", "4"),
        ("classify", "text-classification", "The stone", "--json"),
        ("inspect", "text-generation-source", "--json"),
        ("verify", "text-generation", "--json"),
    ],
)
def test_a_pipe_receives_only_the_result(made: Made, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    folder = made["text-generation"][0].parent
    done = subprocess.run(
        [sys.executable, "-m", "intaglio.cli.main", *(argument.format(tmp=tmp_path) for argument in arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if "--json" in arguments:
        json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generate", "text-generation", ""), "prompt"),
        (("generate", "text-generation", "The stone " * 200), "128"),
        (("generate", "text-generation", "x", "--temperature", "-1"), "temperature"),
        (("generate", "text-generation", "x", "--top-p", "2"), "top_p"),
        (("classify", "text-classification", "The stone " * 200), "128"),
    ],
)
def test_invalid_input_for_a_model(run: Run, made: Made, arguments: tuple[str, ...], message: str) -> None:
    verb, task, *rest = arguments
    result = run(verb, made[task][0], *rest)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
