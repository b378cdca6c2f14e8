"""Prompts as token ids, the same for every tool: Python source, a file to edit, and free text.

``long`` is source of the standard library; the timings' prompts are its first tokens. ``edit`` and ``free`` are for
speculation: a file of about 200 lines to repeat with one name changed, and the beginning of an essay. All are plain
text without a chat template, so that any checkpoint can continue them.
"""

import json
import sysconfig
from pathlib import Path

from tokenizers import Tokenizer

MODULES = "textwrap tempfile argparse inspect typing dataclasses logging/__init__ subprocess tarfile pydoc".split()
EDITED, OLD, NEW = "linecache", "updatecache", "refresh_cache"
LINES = 200
EDIT = """Rename the function `{old}` to `{new}` everywhere in this file, and change nothing else.

The file:
```python
{source}
```

The file after the change:
```python
{start}"""
SHOWN = 3  # lines of the answer that end the prompt
FREE = "The sea has always been more than water to the people who live beside it. When I was a child, my grandmother"


def write(path: Path, checkpoint: Path) -> None:
    """Write the prompts, unless the file exists."""
    if path.is_file():
        return
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    library = Path(sysconfig.get_path("stdlib"))
    source = "\n".join((library / f"{name}.py").read_text(encoding="utf-8") for name in MODULES)
    texts = {"long": source, "edit": edit((library / f"{EDITED}.py").read_text(encoding="utf-8")), "free": FREE}
    ids = {name: tokenizer.encode(text, add_special_tokens=False).ids for name, text in texts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ids))


def edit(source: str) -> str:
    """Return a prompt that shows a file, asks for it with a name changed, and begins the answer."""
    lines = source.splitlines()[:LINES]
    return EDIT.format(old=OLD, new=NEW, source="\n".join(lines), start="\n".join([*lines[:SHOWN], ""]))
