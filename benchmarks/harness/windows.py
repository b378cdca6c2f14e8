"""Token windows of several texts: prose, Python source, chats, and files that are named.

Prose is WikiText-2's test split, Python source is the standard library's, and chats are made of the documentation. No
calibration text holds them. Windows of S tokens are evenly spread over each text and do not overlap.
"""

import json
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from intaglio.exporter.quantize.texts.files import read_text
from intaglio.files.chat.template import read_chat_format
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .doc_chats import chats

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"  # beside the repository; not part of it
WIKITEXT = DATA / "wikitext2-test.txt"
PROSE, PYTHON, CHAT = "WikiText-2", "Python", "chat"
MODULES = (
    "textwrap tempfile tokenize trace string smtplib selectors queue"
    " plistlib optparse netrc mimetypes linecache imaplib"
).split()


def texts(checkpoint: Path, given: Mapping[str, Path] | None = None) -> dict[str, str]:
    """Return the texts by name: those that are there, and the files that are given, which may replace them.

    Python source is the running interpreter's and differs a little between versions. Chats, also those of a given
    ``.jsonl`` file, are rendered by the checkpoint's template; there are none by default where it has none.
    """
    found: dict[str, str] = {}
    if WIKITEXT.is_file():
        found[PROSE] = WIKITEXT.read_text(encoding="utf-8")
    library = Path(sysconfig.get_path("stdlib"))
    found[PYTHON] = "\n".join((library / f"{name}.py").read_text(encoding="utf-8") for name in MODULES)
    template = read_chat_format(checkpoint)
    if template.templates:
        found[CHAT] = "".join(template.render(chat, add_generation_prompt=False) for chat in chats())
    return found | {name: read_text(path, checkpoint)[0] for name, path in (given or {}).items()}


def spread(text: str, tokenizer: Tokenizer, count: int, length: int) -> NDArray[np.int64]:
    """Return ``count`` windows of a text as token ids, [count, length].

    Raises:
        SystemExit: the text is too short.
    """
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) < count * length:
        raise SystemExit(f"the text has {len(ids):,} tokens; {count} windows of {length} need {count * length:,}")
    step = len(ids) // count
    return np.array([ids[i * step : i * step + length] for i in range(count)], dtype=np.int64)


def write_windows(folder: Path, texts: Mapping[str, str], checkpoint: Path, count: int, length: int) -> None:
    """Write ``count`` windows of each text, and the text of each window, as ``divergence.py`` reads them.

    Raises:
        SystemExit: a text is too short.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    np.save(folder / "windows.npy", np.concatenate([spread(text, tokenizer, count, length) for text in texts.values()]))
    (folder / "names.json").write_text(json.dumps([name for name in texts for _ in range(count)]))
