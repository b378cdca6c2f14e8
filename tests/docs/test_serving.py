"""The requests on the pages about the server: those of curl and of JavaScript are answered."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from intaglio.scripts.interop.environments import UnavailableError, node_command

from .pages import ADDRESS, PAGES, Block, blocks, name_of

REQUESTS = [block for page in PAGES for block in blocks(page, "sh", "js") if ADDRESS in block.text]
CURL = [block for block in REQUESTS if block.text.startswith("curl ")]
JAVASCRIPT = [block for block in REQUESTS if block.language == "js"]


def place(block: Block) -> str:
    return f"{name_of(block.page)}:{block.line}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on the PATH")
@pytest.mark.parametrize("block", CURL, ids=place)
def test_a_request_with_curl_is_answered(block: Block, served: str) -> None:
    command = block.text.replace(ADDRESS, served).replace("curl ", "curl --silent --show-error --fail-with-body ")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("block", JAVASCRIPT, ids=place)
def test_a_request_of_javascript_is_answered(block: Block, served: str, tmp_path: Path) -> None:
    program = tmp_path / f"page-{block.line}.mjs"
    program.write_text(block.text.replace(ADDRESS, served), encoding="utf-8")
    try:
        command = node_command("openai_js", program)
    except UnavailableError as error:
        pytest.skip(str(error))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
