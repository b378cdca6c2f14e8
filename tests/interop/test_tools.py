"""What optimizers of ONNX graphs do to an artifact, as docs/artifact-format.md says; in an environment of their own."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from intaglio import QuantizeOptions, quantize
from intaglio.artifact import Target
from intaglio.contract import LOGITS_TO_KEEP, MASK_CHECK
from intaglio.scripts.interop.checkpoints import CHECKPOINTS
from intaglio.scripts.interop.environments import RUNNERS, UnavailableError, python_environment

REMOVING = ("onnxslim", "onnxsim")


def run(tmp_path: Path, target: Target, precision: Any) -> dict[str, dict[str, Any]]:
    try:
        python = python_environment("tools")
    except UnavailableError as error:
        pytest.skip(str(error))
    options = QuantizeOptions(method="rtn")
    quantize(CHECKPOINTS / "tiny-qwen2", tmp_path / "out", precision=precision, target=target, options=options)
    (tmp_path / "request.json").write_text(json.dumps({"folder": str(tmp_path / "out")}))
    command: list[str | Path] = [
        python,
        "-P",
        RUNNERS / "tools.py",
        tmp_path / "request.json",
        tmp_path / "result.json",
    ]
    subprocess.run(command, check=True, capture_output=True)
    found: dict[str, dict[str, Any]] = json.loads((tmp_path / "result.json").read_text())
    return found


@pytest.mark.slow
def test_int4_of_target_ort(tmp_path: Path) -> None:
    """With int8 activations a difference of one unit in the last place of a cosine becomes one of 0.1 in a logit."""
    found = run(tmp_path, "ort", "int4")
    for form in found.values():
        assert {name: one["lost_inputs"] for name, one in form.items()} == {
            name: [LOGITS_TO_KEEP] if name in REMOVING else [] for name in form
        }
        assert {name for name, one in form.items() if MASK_CHECK in one["lost_nodes"]} == set(REMOVING)
    exact, rounded = found["float activations"], found["as it is"]
    assert all(one["difference"] < 1e-4 for one in exact.values())
    assert rounded["onnx_ir"]["difference"] == 0
    assert 1e-3 < rounded["onnxscript"]["difference"] < 0.5  # it computes the rotary table itself


@pytest.mark.slow
def test_int8_of_target_standard(tmp_path: Path) -> None:
    for form in run(tmp_path, "standard", "int8").values():
        assert {name for name, one in form.items() if one["lost_inputs"]} == set(REMOVING)
        assert all(one["difference"] < 1e-4 for one in form.values())
