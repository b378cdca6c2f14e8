"""``--dry-run`` of ``export`` and ``quantize``: what is printed, and that nothing is written."""

import json
from pathlib import Path

import pytest
from intaglio.cli.sizes import duration
from intaglio.exporter.estimate import estimate as module
from intaglio.exporter.estimate.rates import Rates
from intaglio.tests import tiny
from intaglio.tests.cli.conftest import Run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "source", tiny.config("qwen2"), tokenizer=True)


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes a minute for everything but the Hessians' factors, for which it takes hours."""
    monkeypatch.setattr(module, "measure_rates", lambda *_: Rates(0.0, 0.0, 0.0, 0.0, 1e-3, 0.0, 0.0, 60 / 184_000))
    monkeypatch.setattr(module, "available_memory", lambda: 5 * 10**9)
    monkeypatch.setattr(module, "peak_rss", lambda: 10**9)


def test_quantize_prints_what_it_would_write_and_take(run: Run, source: Path) -> None:
    out = source.parent / "out"
    result = run("quantize", source, out, "--dry-run", "--windows", 4)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"dry run  {out} is not written"
    assert lines[1] == "model    qwen2, text-generation, int4, target ort, method gptq"
    assert " kB for " in lines[2]
    assert lines[2].endswith(" parameters")
    assert lines[3].startswith("time     about ")
    assert "sensitivity" not in lines[3]  # it takes no time here
    assert "calibration " in lines[3]
    assert lines[4].strip().startswith("from multiplications timed on this machine just now")
    assert lines[5].startswith("memory   about 1.14 GB peak, in ")
    assert lines[5].endswith("; 5.00 GB are free")
    assert [path.name for path in source.parent.iterdir()] == ["source"]


def test_export_prints_the_same_as_json(run: Run, source: Path) -> None:
    out = source.parent / "out"
    result = run("export", source, out, "--precision", "int8", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert (printed["dry_run"], printed["precision"], printed["method"]) == (True, "int8", "rtn")
    assert printed["least"] == printed["most"] > 10_000
    assert list(printed["seconds"]) == ["weights"]
    assert printed["peak_rss_bytes"] == 10**9 + max(printed["phases"].values())
    assert [path.name for path in source.parent.iterdir()] == ["source"]


@pytest.mark.parametrize("options", [(), ("--precision", "fp16")])
def test_a_precision_without_an_estimate(run: Run, source: Path, options: tuple[str, ...]) -> None:
    result = run("export", source, source.parent / "out", "--dry-run", *options)
    given = options[1] if options else "auto"
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: --dry-run is for --precision int4 and int8, and it is {given}; give one of them\n"
    )


def test_what_a_quantization_would_refuse_is_refused(run: Run, source: Path) -> None:
    result = run("quantize", source, source.parent / "out", "--dry-run", "--keep", "*.nothing=int8")
    assert result.exit_code == 2
    assert "--keep *.nothing: no weight that can be quantized has such a path" in result.stderr


def test_durations_are_rounded() -> None:
    times = [0.4, 1, 99.4, 100, 5900, 7000, 100_000]
    assert [duration(time) for time in times] == ["under 1 s", "1 s", "99 s", "2 min", "98 min", "1.9 h", "27.8 h"]
