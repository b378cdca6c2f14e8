"""The outcomes as the table of docs/clients.md."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from intaglio.scripts.interop import environments
from intaglio.tests.serving.clients.features import features
from intaglio.tests.serving.clients.runs import CLIENTS, Outcomes

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- begin: scripts/clients -->\n", "\n<!-- end: scripts/clients -->"
FAMILY = {"qwen2": "Qwen2", "exaone4": "EXAONE 4.0"}


def write(text: str) -> None:
    """Write the table between the markers of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def written() -> str:
    """Return the table that the page has."""
    return PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip()


def table(found: Mapping[str, Outcomes]) -> str:
    """Return the table: a row for each feature, a column for each client."""
    lines = [f"| | feature | {' | '.join(CLIENTS)} |", "| --- " * (len(CLIENTS) + 2) + "|"]
    group = ""
    for key, feature in features().items():
        cells = [cell(found.get(client, {}).get(key, {})) for client in CLIENTS]
        shown = "" if feature.group == group else f"**{feature.group}**"
        lines.append(f"| {' | '.join([shown, feature.title, *cells])} |")
        group = feature.group
    return "\n".join(lines)


def versions() -> str:
    """Return the sentence that names the versions of the clients."""
    node = ", ".join(environments.NODE["openai_js"])
    python = ", ".join(f"{name} {metadata.version(name)}" for name in ("openai", "litellm", "langchain-openai"))
    return f"Ran with {python} for Python, and {node} for Node."


def cell(outcomes: Mapping[str, str]) -> str:
    """Return a cell: the families apart where their outcomes differ; empty where nothing was tried."""
    if len(set(outcomes.values())) < 2:
        return next(iter(outcomes.values()), "")
    return "; ".join(f"{FAMILY[model]}: {outcome}" for model, outcome in outcomes.items())


def cells(text: str) -> dict[tuple[str, str], str]:
    """Return the cells of a table by the feature's title and the client."""
    found: dict[tuple[str, str], str] = {}
    for line in [line for line in text.splitlines() if line.startswith("|")][2:]:
        _, title, *row = [one.strip() for one in line.removeprefix("|").removesuffix("|").split("|")]
        found |= {(title, client): one for client, one in zip(CLIENTS, row, strict=True)}
    return found
