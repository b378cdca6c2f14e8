"""The ablation: its parts differ in what they are said to, and what is recorded is not made again."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from intaglio.artifact import read_manifest
from intaglio.benchmarks import ablation
from intaglio.benchmarks.harness.records import Records
from intaglio.benchmarks.harness.windows import DATA

TINY = Path(__file__).parents[1] / "checkpoints" / "tiny-qwen2"
EACH = ("GPTQ towards float in 4 bits", "GPTQ in 4 bits", "GPTQ in 4 bits, not damped", "4, 5, 8 bits, rounded")


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "wikitext2-valid.txt").is_file(), reason="WikiText-2 is not beside the repository")
def test_parts(tmp_path: Path) -> None:
    arguments = [str(TINY), "--scratch", str(tmp_path), "--windows", "4", *(f"--only={name}" for name in EACH)]
    for lines in (len(EACH), 0):
        done = CliRunner().invoke(ablation.main, arguments, catch_exceptions=False)
        assert len(done.output.splitlines()) == lines
    found = {record["name"]: record for record in Records(tmp_path / "ablation" / "records.jsonl").all}
    assert list(found) == list(EACH)
    towards, alone, usual, rounded = (found[name] for name in EACH)
    assert towards["bytes"] == alone["bytes"] == usual["bytes"] <= rounded["bytes"]
    assert towards["kl"] < alone["kl"] < usual["kl"]
    assert {"WikiText-2, validation", "Python"} == towards["texts"].keys()
    manifest = read_manifest(tmp_path / "ablation" / "artifact-0")
    entries = [entry.quantization for entry in manifest.tensors.values() if entry.quantization is not None]
    assert {entry.method for entry in entries} == {"rtn"}
    assert {entry.bits for entry in entries} > {4}
