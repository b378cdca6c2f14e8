"""``intaglio push``, ``intaglio card`` and ``--precision`` on the command line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from intaglio.cli.main import cli
from intaglio.tests.publishing.hub_server import Hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "org/tiny-ONNX"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments], prog_name="intaglio")


def test_a_dry_run_and_a_push(hub: Hub, int4: Path, int8: Path) -> None:
    planned = run("push", int4, NAME, "--dry-run")
    assert planned.exit_code == 0
    lines = planned.stdout.splitlines()
    assert any(line.startswith("would send\tonnx/model_q4.onnx_data\t") for line in lines)
    assert lines[-1].startswith(f"to {hub.url}/{NAME}: ")
    assert hub.repositories == {}
    assert "sent\tREADME.md\t" in run("push", int4, NAME, "--message", "first").stdout
    assert hub.repositories[NAME].messages[-1] == "first"
    document = json.loads(run("push", int8, NAME, "--json").stdout)
    assert (document["dry_run"], document["commit"]) == (False, hub.repositories[NAME].branches["main"])
    assert {"name": "intaglio.int8.json", "size": document["sent"][1]["size"]} == document["sent"][1]
    out = run("push", int4, NAME, "--default", "--alone").stdout
    assert "removed\tonnx/model_quantized.onnx\n" in out
    refused = run("push", int4, NAME, "--private")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"Error: {NAME} exists and is public" in refused.stderr


def test_the_card_is_printed(int4: Path) -> None:
    done = run("card", int4, NAME)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("---\n")
    assert json.loads(run("card", int4, NAME, "--json").stdout)["card"] == done.stdout


def test_a_verb_runs_the_precision_that_is_asked_for(hub: Hub, int4: Path, int8: Path, tmp_path: Path) -> None:
    run("push", int4, NAME)
    run("push", int8, NAME)
    hub.log.clear()
    done = run("generate", NAME, "The seal", "--precision", "int8", "--max-new-tokens", "4", "--temperature", "0")
    own = run("generate", int8, "The seal", "--max-new-tokens", "4", "--temperature", "0")
    assert (done.exit_code, done.stdout) == (0, own.stdout)
    assert "onnx/model_q4.onnx_data" not in hub.downloads()
    refused = run("generate", NAME, "The seal", "--precision", "bf16")
    assert refused.exit_code == 2
    assert refused.stderr.endswith("has no bf16 artifact; choose one that is there: int8, int4\n")
    for name, content in hub.repositories[NAME].files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert run("verify", tmp_path, "--precision", "int8").exit_code == 0
    (tmp_path / "onnx" / "model_quantized.onnx").write_bytes(b"x")
    assert run("verify", tmp_path).exit_code == 0
    assert run("verify", tmp_path, "--precision", "int8").exit_code == 1
