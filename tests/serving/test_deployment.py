"""The container image and the compose file, read without Docker: what they name is there."""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped]
from intaglio.cli.main import cli
from intaglio.serving.app import ROUTES
from intaglio.serving.settings import Settings
from intaglio.tests.test_packaging import NATIVE, tree_data, tree_modules

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PAGE = ROOT / "docs" / "deployment.md"


class Instruction(NamedTuple):
    """An instruction of a Dockerfile, its lines joined."""

    name: str
    text: str


def instructions() -> list[Instruction]:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    joined = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def final_stage() -> list[Instruction]:
    found = instructions()
    return found[max(index for index, one in enumerate(found) if one.name == "FROM") :]


def one(name: str) -> str:
    """Return the text of the only instruction of a name in the final stage."""
    (found,) = [instruction.text for instruction in final_stage() if instruction.name == name]
    return found


def service() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    assert set(found) == {"services", "volumes"}
    service: dict[str, Any] = found["services"]["intaglio"]
    return service


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def serve_options() -> set[str]:
    command = cli.get_command(None, "serve")  # type: ignore[arg-type]
    assert command is not None
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def is_sent(path: str) -> bool:
    """Tell whether Docker sends a file of the repository: the last pattern that fits it or a folder of it decides."""
    sent = True
    parents = ["/".join(path.split("/")[:count]) for count in range(1, path.count("/") + 2)]
    for line in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        # `*` of Docker does not cross a slash, `**/` is any number of folders
        names = (pattern.removeprefix("**/"),) if pattern.startswith("**/") else (pattern,)
        fits = any(
            fnmatch(parent.rpartition("/")[2] if pattern.startswith("**/") else parent, name)
            for parent in parents
            for name in names
            if pattern.startswith("**/") or parent.count("/") == name.count("/")
        )
        sent = line.strip().startswith("!") if fits else sent
    return sent


def test_the_image_is_built_from_all_that_the_wheel_needs_and_from_nothing_else() -> None:
    needed = {name.removeprefix("intaglio/") for name in tree_modules() | tree_data()}
    needed |= {path.resolve().relative_to(ROOT).as_posix() for path in NATIVE.rglob("*.[ch]")}
    needed |= {"pyproject.toml", "README.md", "LICENSE", "scripts/backend/intaglio_backend.py"}
    assert {path for path in needed if not is_sent(path)} == set()
    others = ("tests/tiny.py", "docs/index.md", ".git/config", ".venv/bin/python", "benchmarks/README.md", "build/x.py")
    assert [path for path in others if is_sent(path)] == []
    assert not is_sent("runtime/kernels/_kernels.so")
    assert not is_sent("serving/__pycache__/app.cpython-313.pyc")


def test_the_image_has_the_extras_of_the_server_and_no_torch() -> None:
    (installed,) = re.findall(r"\[([\w,]+)\]", " ".join(text for name, text in instructions() if name == "RUN"))
    extras = project()["optional-dependencies"]
    assert installed == "cpu,serve"
    wanted = [line for extra in installed.split(",") for line in extras[extra]]
    names = {re.split(r"[\[<>=;]", line)[0] for line in [*wanted, *extras["structured"], *project()["dependencies"]]}
    assert names & {"torch", "transformers", "onnx", "onnxscript", "optimum-onnx"} == set()


def test_both_stages_have_the_same_python_which_is_one_of_the_supported() -> None:
    bases = [text.split(" AS ")[0] for name, text in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    (version,) = [text.removeprefix("PYTHON=") for name, text in instructions() if name == "ARG"]
    assert f"Programming Language :: Python :: {version}" in project()["classifiers"]


def test_the_image_runs_as_a_user_without_rights() -> None:
    user = one("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)  # numbers, which Kubernetes can check
    assert f"--uid {user.split(':')[0]}" in one("RUN")
    names = [instruction.name for instruction in final_stage()]
    assert names.index("USER") > names.index("RUN")
    assert names.index("USER") > names.index("COPY")


def test_the_image_starts_the_server_on_the_port_that_it_exposes() -> None:
    program, verb, *options = json.loads(one("ENTRYPOINT"))
    assert (program, verb) == ("intaglio", "serve")
    assert program in project()["scripts"]
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given == {"--host": "0.0.0.0", "--port": one("EXPOSE")}
    assert set(given) <= serve_options()
    assert json.loads(one("CMD")) == ["--help"]


@pytest.mark.parametrize("source", ["Dockerfile", "compose.yaml"])
def test_health_is_a_path_of_the_server(source: str) -> None:
    if source == "Dockerfile":
        command = json.loads(one("HEALTHCHECK").partition("CMD ")[2])
    else:
        kind, *command = service()["healthcheck"]["test"]
        assert kind == "CMD"
    assert command[:2] == ["python", "-c"]
    compile(command[2], source, "exec")
    port, path = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", command[2])[0]
    assert port == one("EXPOSE")
    assert path in {route.path for route in ROUTES}


def test_the_compose_file_builds_the_image_and_gives_it_what_it_needs() -> None:
    found = service()
    context = (DEPLOY / found["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / found["build"]["dockerfile"]).is_file()
    options = [word for word in found["command"] if word.startswith("--")]
    assert set(options) <= serve_options()
    targets = [volume.rsplit(":", 2 if volume.endswith(":ro") else 1)[1] for volume in found["volumes"]]
    assert found["command"][0].startswith(f"{targets[0]}/")
    assert found["command"][2].startswith(f"{targets[1]}/")
    assert one("VOLUME") == targets[1]
    assert one("WORKDIR") == targets[0]
    assert all(target in one("RUN") for target in targets)  # the user owns them
    assert found["ports"][0].endswith(f":{one('EXPOSE')}")
    assert found["ports"][0].startswith("127.0.0.1:")


def test_the_compose_file_limits_the_container() -> None:
    found = service()
    assert found["read_only"] is True
    assert found["tmpfs"] == ["/tmp"]
    assert found["cap_drop"] == ["ALL"]
    assert found["mem_limit"] == found["memswap_limit"]
    assert "cpus" in found
    assert int(found["stop_grace_period"].removesuffix("s")) > Settings().drain_timeout


def test_every_command_of_the_page_has_options_of_the_server() -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    used = []
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["docker", "run"]:
                used += [word for word in words[words.index("intaglio") + 1 :] if word.startswith("--")]
            elif "serve" in words:
                used += [word for word in words[words.index("serve") + 1 :] if word.startswith("--")]
    assert len(used) >= 3
    assert set(used) <= serve_options()
    named = set(re.findall(r"`(--[a-z-]+)", text))
    docker = {"--cpus", "--memory", "--memory-swap", "--read-only"}
    assert named - docker <= serve_options()
