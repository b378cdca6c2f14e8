"""Trials of the server with each client; a trial's outcome is a cell of the table in docs/clients.md."""

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from intaglio.scripts.interop import environments

from .blocking import Blocking
from .facts import Facts
from .features import Case, features, outcome
from .frameworks import LANGCHAIN, LITELLM, Trial

MODELS = ("qwen2", "exaone4")
"""The models of the trials, by the names that the server has for them."""

Outcomes = dict[str, dict[str, str]]
"""What the table says, by feature and model."""

AllFacts = Mapping[str, Facts]


@contextmanager
def sync_client(address: str) -> Iterator[Any]:
    """Yield OpenAI's client."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


@contextmanager
def async_client(address: str) -> Iterator[Any]:
    """Yield OpenAI's asynchronous client, with calls that wait."""
    with asyncio.Runner() as runner:
        client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        yield Blocking(client, runner)
        runner.run(client.close())


def python_outcome(client: Any, key: str, facts: AllFacts) -> dict[str, str]:
    """Try a feature with a client for Python."""
    return {model: outcome(features()[key], Case(client, model, facts[model])) for model in MODELS}


def framework_outcome(trials: Mapping[str, Trial], address: str, key: str, facts: AllFacts) -> dict[str, str]:
    """Try a feature with LiteLLM or LangChain."""
    return {model: trials[key](address, model, facts[model]) or "yes" for model in MODELS}


def javascript_outcomes(address: str, facts: AllFacts) -> Outcomes:
    """Try all features with OpenAI's client for JavaScript.

    Raises:
        UnavailableError: Node or the client cannot be had here.
    """
    program = Path(__file__).parent / "javascript" / "features.mjs"
    command = environments.node_command("openai_js", program)
    found: Outcomes = {}
    for model in MODELS:
        arguments = [address, model, json.dumps(facts[model].as_json())]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            said = json.loads(line)
            assert "error" not in said, f"{model}, {said['key']}: {said['error']}"
            found.setdefault(said["key"], {})[model] = said["outcome"]
    return found


def every_outcome(address: str, facts: AllFacts, report: Callable[[str], object]) -> dict[str, Outcomes]:
    """Try everything; return the outcomes by client. ``report`` is called with what is tried next."""
    found: dict[str, Outcomes] = {}
    for title, open_client in PYTHON.items():
        report(title)
        with open_client(address) as client:
            found[title] = {key: python_outcome(client, key, facts) for key in features()}
    report(JAVASCRIPT)
    found[JAVASCRIPT] = javascript_outcomes(address, facts)
    for title, trials in FRAMEWORKS.items():
        report(title)
        found[title] = {key: framework_outcome(trials, address, key, facts) for key in trials}
    return found


PYTHON: Mapping[str, Callable[[str], Any]] = {"openai, Python": sync_client, "openai, Python, async": async_client}
JAVASCRIPT = "openai, JavaScript"
FRAMEWORKS: Mapping[str, Mapping[str, Trial]] = {"LiteLLM": LITELLM, "LangChain": LANGCHAIN}
CLIENTS = (*PYTHON, JAVASCRIPT, *FRAMEWORKS)
