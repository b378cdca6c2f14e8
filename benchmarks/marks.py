"""A page whose prose is written by hand around a block that a script writes."""

from pathlib import Path

END = "<!-- end -->"


def fill(page: Path, title: str, script: str, body: str) -> None:
    """Put ``body`` between the page's marks, or write a page that has nothing but them."""
    begin = f"<!-- begin: written by {script} -->"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# {title}\n\n{begin}\n{END}\n"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{begin}\n\n{body}\n\n{END}{after}", encoding="utf-8")
