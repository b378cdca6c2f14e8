"""transformers.js: the lines of docs/runtimes.md in Node, every task, and the page in headless Chromium."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from intaglio import QuantizeOptions, load, quantize
from intaglio.artifact import Task
from intaglio.scripts.interop import environments, table
from intaglio.scripts.interop.cases import Case
from intaglio.scripts.interop.checkpoints import CHECKPOINTS, FAMILIES
from intaglio.scripts.interop.environments import RUNTIMES, UnavailableError
from intaglio.scripts.interop.matrix import run
from intaglio.scripts.interop.record import Record

PROMPT = "The history of the city"
NEW_TOKENS = 24
PAGE = environments.ROOT / "scripts" / "interop" / "page"
HEADS: tuple[Task, ...] = ("text-classification", "token-classification", "question-answering", "feature-extraction")


def artifact(folder: Path, family: str) -> Path:
    """Return an int4 artifact of the trained tiny checkpoint, in blocks that every runtime takes."""
    out = folder / "out-int4"
    quantize(CHECKPOINTS / f"tiny-{family}", out, options=QuantizeOptions(method="rtn", block_size=32))
    return out


def start(runtime: str) -> list[str]:
    """Return the command of a runtime's program; skip where it cannot be installed."""
    try:
        return environments.command(RUNTIMES[runtime])
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("family", ["exaone4", pytest.param("qwen2", marks=pytest.mark.slow)])
def test_the_lines_for_node_run(tmp_path: Path, family: str) -> None:
    text = table.PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```js\n(import .*?)^```$", text, re.DOTALL | re.MULTILINE)
    node, runner = start("transformers_node")
    out = artifact(tmp_path, family)
    # bare imports are resolved from the program's folder upwards
    (tmp_path / "node_modules").symlink_to(Path(runner).parent / "node_modules", target_is_directory=True)
    (tmp_path / "lines.mjs").write_text(code, encoding="utf-8")
    done = subprocess.run([node, "lines.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    with load(out, task="text-generation", kernels="onnxruntime", threads=1) as lm:
        expected = lm.generate(PROMPT, max_new_tokens=NEW_TOKENS, temperature=0.0).text
    assert done.stdout.rstrip("\n") == PROMPT + expected


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", HEADS)
def test_every_task_runs_in_node(family: str, task: Task) -> None:
    start("transformers_node")
    record = Record()
    run([Case(family, task, "ort", "fp32")], ["transformers_node"], record, lambda *_: None)
    assert {outcome.kind for row in record.outcomes.values() for outcome in row.values()} == {"same"}


@pytest.mark.slow
def test_the_page_streams_the_same_tokens(tmp_path: Path) -> None:
    node, runner = start("transformers_web")
    out = artifact(tmp_path, "qwen2")
    found, shot = tmp_path / "found.json", tmp_path / "page.png"
    program = [node, str(Path(runner).with_name("page.mjs")), str(PAGE), str(out), PROMPT, str(NEW_TOKENS)]
    subprocess.run([*program, str(found), str(shot)], env=environments.variables(), check=True, timeout=120)
    result = json.loads(found.read_text(encoding="utf-8"))
    with load(out, task="text-generation", kernels="onnxruntime", threads=1) as lm:
        expected = lm.generate(PROMPT, max_new_tokens=NEW_TOKENS, temperature=0.0)
    assert result["tokens"] == list(expected.token_ids), result
    assert result["text"] == PROMPT + expected.text
    assert result["status"] == f"ready, {NEW_TOKENS} tokens"
    assert shot.stat().st_size > 0
