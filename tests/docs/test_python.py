"""Every Python block of README and docs/ runs, the blocks of a page one after the other."""

import types
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from .conftest import Workplace
from .pages import ADDRESS, PAGES, blocks, name_of

WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_blocks_of_a_page_run(
    page: Path, workplace: Workplace, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(workplace(page))
    module = types.ModuleType("page")
    for block in blocks(page, "python"):
        if block.not_run is None:
            code = "\n" * (block.line - 1) + block.text  # so that a traceback names the line of the page
            if ADDRESS in code:
                code = code.replace(ADDRESS, request.getfixturevalue("served"))
            exec(compile(code, page, "exec", dont_inherit=True), module.__dict__)
    for client in vars(module).values():
        if isinstance(client, (OpenAI, httpx.Client)):
            client.close()


def test_few_blocks_are_left_out() -> None:
    every = [block for page in PAGES for block in blocks(page, "python")]
    assert len(every) >= 10
    left_out = [block.not_run for block in every if block.not_run is not None]
    assert len([reason for reason in left_out if not reason.startswith("tests/interop runs it")]) <= 3
