"""The pages refer to what exists: pages, anchors, files and names of the code, options of the command line."""

import pkgutil
import re
import shlex
from pathlib import Path

import click
import pytest
from intaglio.cli.main import VERBS, cli

from .pages import EVERY_PAGE, ROOT, blocks, name_of, prose

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:[\w.-]+/)*[\w.-]+(?:/|\.(?:py|md|c|h|txt|toml|svg|jinja|css|js|yml|yaml)))`")
# Names on the pages that are not in the repository: files of checkpoints and artifacts, and examples.
_ELSEWHERE = re.compile(
    r"^(out.*|onnx/|additional_chat_templates/.*|report\.html|FILE\.\w+|chat_template\.jinja|models/<.*|runs?/.*|build/.*)$"
)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs form them."""
    found = set(re.findall(r'id="([^"]+)"', prose(page)))
    for heading in re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
        found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", EVERY_PAGE, ids=name_of)
def test_every_relative_link_and_anchor_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", EVERY_PAGE, ids=name_of)
def test_every_path_in_code_quotes_exists(page: Path) -> None:
    named = {path for path in _PATH.findall(prose(page)) if not _ELSEWHERE.match(path)}
    assert [path for path in sorted(named) if not (ROOT / path).exists() and "/" in path] == []
    scripts = set(re.findall(r"\bscripts/\w+(?:\.\w+)?", page.read_text(encoding="utf-8")))
    assert [path for path in sorted(scripts) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", EVERY_PAGE, ids=name_of)
def test_every_dotted_name_in_code_quotes_exists(page: Path) -> None:
    named = set(re.findall(r"`(intaglio(?:\.\w+)+)", prose(page)))
    assert [name for name in sorted(named) if not name.endswith(".json") and not _resolves(name)] == []


def _resolves(name: str) -> bool:
    """Check that a dotted name is a module, or an attribute of one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("page", EVERY_PAGE, ids=name_of)
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    unknown = []
    for block in blocks(page, "console", "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in re.split(r"[|;] ", line):
                words = shlex.split(part, comments=True) if re.search(r"\bintaglio\b", part) else []
                words = words[words[0] == "$" :] if words else []
                if words[:1] != ["intaglio"] or words[1:2] == ["--help"]:
                    continue
                unknown += [] if words[1] in VERBS else [part]
                command = cli.get_command(click.Context(cli), words[1])
                assert command is not None, part
                known = {
                    option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
                }
                unknown += [part for word in words if word.startswith("--") and word.split("=")[0] not in known]
    assert unknown == []
