"""The kernels for 64-bit ARM, in an emulator: `scripts/test-arm` sets it up and runs these tests."""

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.runtime import kernels

from .arm import same_bits
from .fuzz import judge

ROOT = Path(__file__).parents[3]
ARM = [sys.executable, str(ROOT / "scripts" / "backend" / "arm.py")]
CHECKPOINTS = ROOT / "tests" / "checkpoints"
ALL = ("NEON-I8MM", "NEON-DotProd", "NEON")


def test_a_machine_without_the_emulator_is_told_what_is_missing(tmp_path: Path) -> None:
    environment = os.environ | {"INTAGLIO_ARM": str(tmp_path)}
    done = subprocess.run([*ARM, "check"], env=environment, capture_output=True, text=True, check=False)
    other = f"ARM is emulated on x86-64 Linux alone, and this is {sys.platform} on {platform.machine()}"
    here = sys.platform.startswith("linux") and platform.machine() == "x86_64"
    assert done.stderr == f"arm: {f'{tmp_path} has no ARM Python; scripts/test-arm downloads it' if here else other}\n"
    assert done.returncode == 1


@pytest.fixture(scope="module")
def emulator() -> None:
    """ARM Python, and the kernels as they are now."""
    found = subprocess.run([*ARM, "check"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip(found.stderr.strip())
    subprocess.run([*ARM, "set-up"], check=True)


def run(*arguments: str) -> str:
    """Return what ARM Python writes."""
    kept = {name: value for name, value in os.environ.items() if name != "INTAGLIO_KERNELS"}
    done = subprocess.run([*ARM, "run", *arguments], env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("operator", judge.NAMES)
def test_results_have_the_bits_of_x86(operator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AVX2 stands for x86: with AVX512 the weights of a long sequence are repacked."""
    monkeypatch.setenv("INTAGLIO_KERNELS", "AVX2")
    if kernels.instructions() != "AVX2":
        pytest.skip("needs the kernels compiled for AVX2")
    first, every = judge.NAMES.index(operator), len(judge.NAMES)
    path = tmp_path / "cases"
    same_bits.record((judge.draw("differential", 5, first + every * number) for number in range(40)), path)
    told = run("-m", "intaglio.tests.runtime.kernels.arm.same_bits", str(path))
    assert told == f"tried {', '.join(ALL)}\n"


@pytest.mark.slow
@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("mode", ["differential", "mutations"])
def test_results_are_those_of_numpy_and_of_onnxruntime(mode: str) -> None:
    told = run("-m", "intaglio.tests.runtime.kernels.fuzz.child", mode, "21", "0", "60")
    lines = [json.loads(line) for line in told.splitlines()]
    outcomes = Counter(line["outcome"] for line in lines if "outcome" in line)
    assert outcomes.total() == 60
    assert outcomes.keys() <= {judge.RIGHT, judge.REFUSED}, [line for line in lines if "outcome" in line]
    assert outcomes[judge.RIGHT] > (10 if mode == "mutations" else 59)


@pytest.mark.slow
@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_an_int4_artifact_generates_the_tokens_of_x86(family: str, tmp_path: Path) -> None:
    artifact = tmp_path / "int4"
    quantize(CHECKPOINTS / f"tiny-{family}", artifact, precision="int4", options=QuantizeOptions(method="rtn"))
    command = [sys.executable, "-m", "intaglio.tests.runtime.kernels.arm.tokens", str(artifact)]
    environment = os.environ | {"INTAGLIO_KERNELS": "AVX2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wanted = json.loads(done.stdout)
    assert wanted["int8"]["operators"] == ["MatMulNBits", "GroupQueryAttentionInt8"]
    assert json.loads(run(*command[1:])) == wanted
