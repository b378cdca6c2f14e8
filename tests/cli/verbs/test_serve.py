"""The options of ``intaglio serve``; tests/serving/test_command.py starts it."""

import os
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from intaglio.cli.loading import name_artifacts
from intaglio.cli.verbs.serving import serve as module
from intaglio.cli.verbs.serving.listening import api_keys, host_names, is_loopback
from intaglio.errors import UsageError
from intaglio.serving.settings import Settings
from intaglio.tests.cli.conftest import MakeArtifact, Run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that the command makes; it ends before it listens."""
    made: list[Settings] = []

    def listen(*_: Any) -> None:
        raise UsageError("enough")

    def settings(**given: Any) -> Settings:
        made.append(Settings(**given))
        return made[0]

    monkeypatch.setattr(module, "Settings", settings)
    monkeypatch.setattr(module, "listen", listen)
    return made


def test_every_setting_has_an_option() -> None:
    options = {option.name for option in module.command.params if isinstance(option, click.Option)}
    settings = {field.name for field in fields(Settings)} - {"api_keys"}
    assert settings | {"given_keys", "api_key_file"} <= options


def test_without_options_the_settings_are_the_defaults(
    run: Run, make_artifact: MakeArtifact, made: list[Settings]
) -> None:
    assert run("serve", make_artifact()).stderr == "Error: enough\n"
    assert made == [Settings(preload=True, allowed_hosts=("localhost", "127.0.0.1", "[::1]"))]


def test_the_options_reach_the_settings(
    run: Run, make_artifact: MakeArtifact, tmp_path: Path, made: list[Settings]
) -> None:
    (tmp_path / "keys").write_text("first\n\nsecond\n")
    options = "--slots 2 --max-queue 0 --lazy --allow-origin https://a --log-contents --api-key third --allow-host Box"
    result = run("serve", make_artifact(), *options.split(), "--api-key-file", tmp_path / "keys")
    assert result.stderr == "Error: enough\n"
    assert made == [
        Settings(
            slots=2,
            max_queue=0,
            preload=False,
            allowed_origins=("https://a",),
            log_contents=True,
            api_keys=("third", "first", "second"),
            allowed_hosts=("localhost", "127.0.0.1", "[::1]", "box"),
        )
    ]


def test_a_port_in_use(run: Run, make_artifact: MakeArtifact) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", make_artifact(), "--port", port)
    assert result.exit_code == 2
    assert result.stderr == f"Error: port {port} of 127.0.0.1 is in use; give another --port, or 0 for any\n"


def test_an_address_of_another_machine(run: Run, make_artifact: MakeArtifact) -> None:
    result = run("serve", make_artifact(), "--host", "192.0.2.1", "--port", "0")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: cannot listen on port 0 of 192.0.2.1 (")


def test_names_of_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "int4").mkdir()
    (tmp_path / "a=b").mkdir()
    monkeypatch.chdir(tmp_path / "int4")
    assert name_artifacts([f"{tmp_path}/int4/"]) == {"int4": f"{tmp_path}/int4/"}
    assert name_artifacts(["."]) == {"int4": "."}
    assert name_artifacts([f"{tmp_path}/a=b"]) == {"a=b": f"{tmp_path}/a=b"}
    assert name_artifacts(["org/name@v1", "x=org/name@v1"]) == {"org/name": "org/name@v1", "x": "org/name@v1"}
    message = "org/one and org/two would both be called 'x'; name one of them: NAME=org/two"
    with pytest.raises(UsageError, match=message):
        name_artifacts(["x=org/one", "x=org/two"])
    for wrong in ("=org/one", "x="):
        with pytest.raises(UsageError, match="is not NAME=ARTIFACT; write it like small=out/int4"):
            name_artifacts([wrong])


def test_hosts() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"))
    assert host_names("0.0.0.0", ()) == ()
    assert host_names("::1", ()) == ("localhost", "127.0.0.1", "[::1]")
    assert host_names("0.0.0.0", ("A.example",)) == ("localhost", "127.0.0.1", "[::1]", "0.0.0.0", "a.example")


def test_keys(tmp_path: Path, run: Run, make_artifact: MakeArtifact) -> None:
    file = tmp_path / "keys"
    file.write_text("\n \n")
    with pytest.raises(UsageError, match=r"keys has no API key; write one on each line$"):
        api_keys((), file)
    for wrong in ("", "a b", "a\tb"):
        with pytest.raises(UsageError, match="an API key is empty, or has a space or a control character"):
            api_keys((wrong,), None)
    result = run("serve", make_artifact(), "--api-key-file", tmp_path / "none")
    assert (result.exit_code, result.stderr) == (2, f"Error: {tmp_path / 'none'}: No such file or directory\n")


def test_without_the_extra(make_artifact: MakeArtifact) -> None:
    code = "import sys; sys.modules['starlette'] = None; from intaglio.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", make_artifact()],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".dev")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "Error: serving needs the package starlette, which is not installed; "
        "install it with: pip install 'intaglio[serve]'\n",
    )
