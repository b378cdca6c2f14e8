"""Every snippet of the model card runs, in the environment of its runtime, on a repository of the local hub."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from intaglio import QuantizeOptions, push, quantize
from intaglio.artifact import read_manifest
from intaglio.publishing.snippets import Chat, Runtime, Snippet, runtimes, snippets
from intaglio.scripts.interop.environments import node_environment, python_environment, variables
from intaglio.tests import tiny
from intaglio.tests.publishing.hub_server import Hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "org/tiny-ONNX"
LOCAL_HUB = """
import { env } from "@huggingface/transformers";
env.remoteHost = process.env.HF_ENDPOINT;
env.cacheDir = process.env.HF_HOME;
await import("./snippet.mjs");
"""


@pytest.fixture
def node_folder() -> Iterator[Path]:
    """A folder from which Node finds the packages."""
    folder = node_environment() / f"snippet-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def run_snippet(snippet: Snippet, hub: Hub, tmp_path: Path, command: list[str]) -> str:
    """Run a snippet as a program of its own; return what it prints."""
    environment = {name: value for name, value in variables().items() if name != "HF_HUB_OFFLINE"}
    cache = tmp_path / f"cache of {snippet.runtime}"
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def command_of(snippet: Snippet, tmp_path: Path, node_folder: Path) -> list[str]:
    """Write a snippet to a file, and return the command that runs it."""
    if snippet.language == "js":
        (node_folder / "snippet.mjs").write_text(snippet.code)
        (node_folder / "start.mjs").write_text(LOCAL_HUB)
        return ["node", str(node_folder / "start.mjs")]
    (tmp_path / "snippet.py").write_text(snippet.code)
    pythons: dict[Runtime, str] = {"onnxruntime-genai": "genai", "optimum": "optimum", "onnxruntime": "onnxruntime"}
    name = pythons.get(snippet.runtime)
    return [sys.executable if name is None else str(python_environment(name)), str(tmp_path / "snippet.py")]


@pytest.mark.parametrize("chat", [None, "settings"])
def test_the_snippets_of_intaglio_and_onnxruntime_run(
    hub: Hub, int4: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    push(int4, NAME)
    found = {one.runtime: one for one in snippets(read_manifest(int4), NAME, "int4", chat=chat)}
    for runtime in ("intaglio", "onnxruntime"):
        exec(compile(found[runtime].code, runtime, "exec"), {})
        assert capsys.readouterr().out.strip()


def test_a_snippet_names_the_precision_that_is_not_the_default(int4: Path) -> None:
    for one in snippets(read_manifest(int4), NAME, "int8", chat=None):
        assert {"intaglio": 'precision="int4"', "transformers.js": 'dtype: "q4"'}.get(
            one.runtime, "model_q4"
        ) in one.code


def test_transformers_js_gets_a_chat_by_the_settings_alone(int4: Path) -> None:
    manifest = read_manifest(int4)
    for chat, found in ((None, False), ("file", False), ("settings", True)):
        every = {one.runtime: one.code for one in snippets(manifest, NAME, "int4", chat=cast(Chat, chat))}
        assert ("role" in every["transformers.js"]) is found
        assert ("lm.chat" in every["intaglio"]) is (chat is not None)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
@pytest.mark.parametrize(
    "task",
    ["text-generation", "feature-extraction", "text-classification", "token-classification", "question-answering"],
)
def test_every_snippet_runs_in_its_runtime(hub: Hub, tmp_path: Path, node_folder: Path, family: str, task: str) -> None:
    source = tiny.write(tmp_path / "source", tiny.config(family, task), tokenizer=True)  # with a chat template
    quantize(source, tmp_path / "out", options=QuantizeOptions(method="rtn"))
    manifest = read_manifest(tmp_path / "out")
    push(tmp_path / "out", NAME)
    chats: tuple[Chat, ...] = (None, "settings") if task == "text-generation" else (None,)
    for chat in chats:
        every = snippets(manifest, NAME, "int4", chat=chat)
        assert [one.runtime for one in every] == runtimes(manifest, "int4")
        for one in every:
            printed = run_snippet(one, hub, tmp_path, command_of(one, tmp_path, node_folder))
            assert printed, one.runtime
