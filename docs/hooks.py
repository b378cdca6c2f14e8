"""Add the pages of the root and of benchmarks/ to the site, make their relative links fit, and show mkdocstrings the
package.

On GitHub a page of docs/ links to ``../benchmarks/runtime.md``; on the site both are in one tree.
"""

import re
import shutil
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"),
    *(path.relative_to(ROOT).as_posix() for kind in ("md", "svg") for path in (ROOT / "benchmarks").glob(f"*.{kind}")),
]

PACKAGE = ROOT / "build" / "docs-package" / "intaglio"
"""Links to the package's modules and folders alone: mkdocstrings reads everything below a package, and the root of the
repository also holds a virtual environment."""

_LINK = re.compile(r"(?<=\]\()([^)\s:#]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the folder that ``paths`` of mkdocs.yml names."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    PACKAGE.mkdir(parents=True)
    for path in (*ROOT.glob("*.py"), *(init.parent for init in ROOT.glob("*/__init__.py"))):
        (PACKAGE / path.name).symlink_to(path)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the pictures of benchmarks/."""
    for name in OUTSIDE:
        files.append(File.generated(config, _on_site(name), abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite relative links from places in the repository to places on the site."""
    source = page.file.src_uri
    outside = {_on_site(name): name for name in OUTSIDE}
    folder = (ROOT / outside.get(source, f"docs/{source}")).parent

    def moved(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return match[1]
        place = _on_site(target.relative_to(ROOT).as_posix())
        return "../" * source.count("/") + place

    return _LINK.sub(moved, markdown)


def _on_site(name: str) -> str:
    # README.md would become the index of the site, which docs/index.md is.
    return "overview.md" if name == "README.md" else name.removeprefix("docs/")
