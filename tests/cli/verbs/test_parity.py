"""``intaglio parity``, and the verdict that export and quantize write: output and exit codes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from intaglio.artifact import read_manifest
from intaglio.exporter import export, weights
from intaglio.runtime.engine import onnxruntime
from intaglio.tests import tiny
from intaglio.tests.cli.conftest import MakeArtifact, Run
from torch import Tensor

QUICK = ("--windows", 1, "--window", 32, "--steps", 4, "--threads", 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity") / "source"
    return tiny.write(folder, tiny.config("qwen2", num_hidden_layers=1), tokenizer=True)


@pytest.fixture(scope="module")
def artifact(source: Path) -> Path:
    export(source, source.parent / "out")
    return source.parent / "out"


def test_a_faithful_artifact(run: Run, source: Path, artifact: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = run("parity", artifact, "--source", source, *QUICK, "--html", page)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "verdict   faithful: the same model, up to the rounding of its precision"
    assert lines[1].startswith("compared  prompt: largest difference ")
    assert lines[1].count("top-1 100.0 %") == 1
    assert "          padded-left: refused, as expected" in lines
    assert "greedy    1 of 1 continuations equal the source's to the last token" in lines
    assert lines[-1] == f"report    {page}"
    assert "<!doctype html>" in page.read_text(encoding="utf-8").lower()
    assert read_manifest(artifact).parity.verdict == "not checked"  # recorded only with --record


def test_json(run: Run, source: Path, artifact: Path) -> None:
    result = run("parity", artifact, "--source", source, *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["verdict"], told["precision"], told["format_version"]) == ("faithful", "fp32", 1)


def test_a_limit_fails_the_check(run: Run, source: Path, artifact: Path) -> None:
    result = run("parity", artifact, "--source", source, *QUICK, "--limit", "relative_error=1e-12")
    assert result.exit_code == 1
    assert result.stdout.startswith("verdict   broken: not the same model as its source\nbecause   prompt: ")
    assert result.stderr == f"Error: {artifact} is broken: it differs from its source\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "kl_mean"), "'kl_mean' is not MEASURE=NUMBER; write it like 'kl_mean=0.01'."),
        (("--limit", "kl_mean=x"), "'kl_mean=x' is not MEASURE=NUMBER; write it like 'kl_mean=0.01'."),
        (("--limit", "kl=1"), "--limit kl: unknown measure; choose one of relative_error, kl_mean, flips"),
        (("--html", "no/such/report.html"), "no/such/report.html: there is no folder "),
        (("--record", "--limit", "flips=0"), "--record needs the default limits; leave out --limit or --record"),
    ],
)
def test_invalid_options(run: Run, source: Path, artifact: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("parity", artifact, "--source", source, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_folder_that_is_not_an_artifact(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("parity", tmp_path / "empty")
    assert result.exit_code == 2
    assert f"{tmp_path / 'empty'} is not an intaglio artifact: it has no intaglio.json" in result.stderr


def test_export_writes_the_verdict(run: Run, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("export", source, out, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["parity"] == "faithful"
    assert read_manifest(out).parity.verdict == "faithful"
    assert json.loads((out / "parity.json").read_text())["verdict"] == "faithful"
    assert (out / "parity.html").is_file()
    assert run("verify", out).exit_code == 0
    assert "parity      faithful" in run("inspect", out).stdout.splitlines()
    assert "parity.html" not in {path.name for path in source.iterdir()}


def test_a_broken_export_is_reported_and_does_not_load(
    run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def columns(self: weights.Stored, *arguments: Any) -> Tensor:
        return whole(self, *arguments) * (0 if "down_proj" in self.name else 1)

    whole = weights.Stored.columns
    monkeypatch.setattr(weights.Stored, "columns", columns)
    out = tmp_path / "out"
    result = run("export", source, out)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {out} is broken: it differs from its source; see {out / 'parity.html'}\n")
    assert "down_proj" in result.stderr
    assert read_manifest(out).parity.verdict == "broken"
    result = run("generate", out, "text")
    assert result.exit_code == 2
    assert f"{out} is not the model that it was made from: its parity report says broken" in result.stderr


def test_an_artifact_as_source_is_not_checked(run: Run, artifact: Path, tmp_path: Path) -> None:
    result = run("quantize", artifact, tmp_path / "out", "--method", "rtn", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["parity"] == "not checked"
    assert result.stderr == (
        f"Note: {tmp_path / 'out'} is not checked: {artifact} is an artifact; "
        f"run `intaglio parity {tmp_path / 'out'} --source CHECKPOINT --record`\n"
    )


def test_recording_later(run: Run, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(source, out)
    assert run("parity", out, "--source", source, *QUICK, "--record").exit_code == 0
    assert read_manifest(out).parity.verdict == "faithful"
    assert run("verify", out).exit_code == 0


def test_bf16_cannot_be_checked_on_the_cpu(run: Run, source: Path, tmp_path: Path) -> None:
    result = run("export", source, tmp_path / "out", "--precision", "bf16")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith(f"Note: {tmp_path / 'out'} is not checked: ")
    assert "cannot run on the CPU, for which ONNX Runtime has no bf16 kernels" in result.stderr


def test_a_missing_onnxruntime_is_reported_before_long_work(
    run: Run, make_artifact: MakeArtifact, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "_installed", lambda name: False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run("export", source, tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.endswith(f"; or give --no-parity to write {tmp_path / 'out'} unchecked\n")
    assert not (tmp_path / "out").exists()
    assert run("export", source, tmp_path / "out", "--no-parity").exit_code == 0
