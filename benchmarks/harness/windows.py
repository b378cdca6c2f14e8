"""Token windows of two texts: WikiText-2's test split, and Python source of the standard library.

No calibration text holds these modules. Windows of S tokens are evenly spread over each text and do not overlap.
"""

import sysconfig
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"  # beside the repository; not part of it
WIKITEXT = DATA / "wikitext2-test.txt"
MODULES = (
    "textwrap tempfile tokenize trace string smtplib selectors queue"
    " plistlib optparse netrc mimetypes linecache imaplib"
).split()


def texts(wikitext: Path = WIKITEXT) -> dict[str, str]:
    """Return the texts by name; Python source is the running interpreter's and differs a little between versions."""
    library = Path(sysconfig.get_path("stdlib"))
    source = "\n".join((library / f"{name}.py").read_text(encoding="utf-8") for name in MODULES)
    return {"WikiText-2": wikitext.read_text(encoding="utf-8"), "Python": source}


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
