"""The reader of JSON: every file and text that intaglio parses as JSON goes through here.

What comes with a model may come from anyone. A file is read if it is a regular one and not longer than its kind
allows; the nesting, the length of numbers, keys that are given twice and text that is not Unicode are checked once,
here. What a value means is checked by ``json_fields``.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from .regular_file import is_there, read_regular

MB = 1 << 20
MAX_BYTES = 16 * MB
LIMITS = {
    "intaglio.json": 64 * MB,  # and intaglio.int8.json, of a folder with several precisions
    "model.safetensors.index.json": 64 * MB,
    "tokenizer_config.json": 32 * MB,
    "vocab.json": 64 * MB,
}
"""The most bytes of the files that may be longer than MAX_BYTES. The longest published ones have a quarter of that."""

MAX_DEPTH = 100
"""Arrays and objects inside each other."""

MAX_DIGITS = 100
"""Digits of a whole number. ``model_max_length`` has 31 of them where transformers knows no length."""

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def read_object(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file; return an empty one where there is no such file.

    Raises:
        ValueError: the file cannot be read or does not hold an object. The message names the file and the reason.
    """
    if not is_there(path):
        return {}
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return data


def read_json(path: Path) -> Any:
    """Read the value in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read. The message names the file and the reason.
    """
    name = "intaglio.json" if path.match("intaglio.*.json") else path.name
    data = read_regular(path, LIMITS.get(name, MAX_BYTES))
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error})") from None


def parse_json(text: str | bytes, *, strict: bool = True, constants: bool = True) -> Any:
    """Parse a JSON text as ``json.loads`` does.

    Args:
        strict: control characters in strings are refused.
        constants: NaN and Infinity are parsed, as Python writes them; otherwise they are refused.

    Raises:
        json.JSONDecodeError: the text is not JSON.
        ValueError: it is not UTF-8, is nested deeper than MAX_DEPTH, gives a key twice, or holds a number or a
            character that nothing can be made of.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(
            text,
            strict=strict,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_constant=float if constants else _refuse_constant,
        )
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    if _SURROGATE_ESCAPE.search(text):
        _check_unicode(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice[:60]!r} is given twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _check_depth(value: Any) -> None:
    """Walk level by level, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return
    raise _too_deep()


def _check_unicode(value: Any) -> None:
    """Check all strings; only an escape such as \\ud800 can make one that is not Unicode."""
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            try:
                one.encode()
            except UnicodeEncodeError as error:
                character = f"\\u{ord(one[error.start]):04x}"
                raise ValueError(f"a string has {character}, which is half of a character") from None
        elif isinstance(one, dict):
            rest += one
            rest += one.values()
        elif isinstance(one, list):
            rest += one


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _too_deep() -> ValueError:
    return ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
