"""A page with a block that a script writes, between prose that is written by hand."""

from pathlib import Path

END = "<!-- end -->"


def fill(page: Path, title: str, script: str, body: str) -> None:
    """Replace the page's generated block with ``body``; write a new page if there is none."""
    begin = f"<!-- begin: written by {script} -->"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# {title}\n\n{begin}\n{END}\n"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{begin}\n\n{body}\n\n{END}{after}", encoding="utf-8")
