"""The special tokens that a folder's files declare, collected as transformers' ``AutoTokenizer`` collects them.

There are five ways to declare them: in tokenizer_config.json ``added_tokens_decoder``, a name (``eos_token``, …) or a
list (``additional_special_tokens``, ``extra_special_tokens``); special_tokens_map.json; and added_tokens.json. The two
last files count only where tokenizer_config.json has no ``added_tokens_decoder``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from .json_fields import is_integer, shown
from .json_file import read_object

CONFIG = "tokenizer_config.json"
MAP = "special_tokens_map.json"
ADDED = "added_tokens.json"

DECODER = "added_tokens_decoder"
EXTRA = "extra_special_tokens"
ADDITIONAL = "additional_special_tokens"
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The names that every tokenizer has, in the order in which transformers adds their tokens."""

FLAGS = ("single_word", "lstrip", "rstrip", "special", "normalized")
MAX_DIGITS = 10  # of a token id

QWEN2 = "Qwen2Tokenizer"
GPT2 = "GPT2Tokenizer"
END_OF_TEXT = "<|endoftext|>"
CLASS_NAMES: Mapping[str | None, tuple[str, ...]] = {
    QWEN2: ("unk_token", "eos_token", "pad_token"),
    GPT2: ("unk_token", "bos_token", "eos_token"),
}
"""The names that stand for ``<|endoftext|>`` in a class of tokenizers where the files do not give them."""


@dataclass(frozen=True)
class SpecialTokens:
    """The declared tokens: by name, in the lists, and by id."""

    tokenizer_class: str | None
    named: Mapping[str, AddedToken]
    extra: tuple[AddedToken, ...]
    by_id: Mapping[int, AddedToken]
    defaults: frozenset[str]
    """The names whose token the class gives, not a file."""

    def add_to(self, tokenizer: Tokenizer) -> None:
        """Add the tokens. One that is in the vocabulary keeps its id, and is not split into pieces from now on.

        A new token gets the next free id, in the order of transformers. A token that only the class names is left out
        where it would be new: no checkpoint has an embedding for it.
        """
        names = {token.content for token in self.named.values()}
        listed = [
            *(token for name, token in self.named.items() if not self._is_new_default(name, tokenizer)),
            *self.extra,
        ]
        tokens = [token for _, token in sorted(self.by_id.items())]
        known = {token.content for token in (*tokens, *tokenizer.get_added_tokens_decoder().values())}
        for token in listed:
            if token.content not in known:
                known.add(token.content)
                tokens.append(token)
        for token in tokens:
            if token.content in names:
                token.special = True
        tokenizer.add_tokens(tokens)
        if self.tokenizer_class == QWEN2:  # this class adds them once more, without the flags that files give
            tokenizer.add_tokens([AddedToken(token.content, special=True) for token in listed])

    def _is_new_default(self, name: str, tokenizer: Tokenizer) -> bool:
        return name in self.defaults and tokenizer.token_to_id(self.named[name].content) is None


def read_special_tokens(folder: Path, tokenizer: Tokenizer | None = None) -> SpecialTokens:
    """Read the declarations of a folder.

    Args:
        tokenizer: that of tokenizer.json, whose own tokens are declared with their ids too.

    Raises:
        ValueError: a file cannot be read, or a declaration has another form. The message names the file and the key.
    """
    path = folder / CONFIG
    config = read_object(path)
    tokenizer_class = class_of(folder, config)
    declared = _Declared()
    for name in CLASS_NAMES.get(tokenizer_class, ()):
        declared.named[name] = AddedToken(END_OF_TEXT, special=True)
    if tokenizer is not None and tokenizer.padding is not None:
        declared.named.setdefault("pad_token", AddedToken(tokenizer.padding["pad_token"], special=True))
    declared.read_config(path, config)
    by_id: dict[int, AddedToken] = {}
    if DECODER in config:
        by_id = _by_id(path, config[DECODER])
    else:
        declared.read_map(folder / MAP, read_object(folder / MAP))
        special = {token.content for token in (*declared.named.values(), *declared.extra)}
        by_id = _added(folder / ADDED, special)
        if tokenizer is not None:
            by_id |= tokenizer.get_added_tokens_decoder()
    named = {name: declared.named[name] for name in NAMES if name in declared.named}
    return SpecialTokens(
        tokenizer_class,
        named | declared.model_specific(),
        tuple(declared.extra),
        by_id,
        frozenset(CLASS_NAMES.get(tokenizer_class, ())) - declared.given,
    )


def class_of(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Return the name of the class that AutoTokenizer takes, without ``Fast``; None where the files name none.

    Raises:
        ValueError: config.json cannot be read.
    """
    model = read_object(folder / "config.json")
    if model.get("model_type") == "qwen2":  # whatever the tokenizer's configuration says
        return QWEN2
    named = config.get("tokenizer_class") or model.get("tokenizer_class")
    return named.removesuffix("Fast") if isinstance(named, str) else None


@dataclass
class _Declared:
    """The tokens as they are read, file by file; ``given`` are the names that a file has, null or not."""

    named: dict[str, AddedToken] = field(default_factory=dict)
    extra: list[AddedToken] = field(default_factory=list)
    given: set[str] = field(default_factory=set)
    has_list: bool = False
    specific: dict[str, AddedToken] = field(default_factory=dict)
    late_specific: dict[str, AddedToken] = field(default_factory=dict)

    def read_config(self, path: Path, config: Mapping[str, Any]) -> None:
        for name, value in config.items():
            if name in NAMES:
                self._name(path, name, value)
            elif name.endswith("_token") and isinstance(value, str):
                self.specific[name] = _token(path, name, value)
            elif name.endswith("_token") and isinstance(value, dict):
                self.late_specific[name] = _token(path, name, value)
        key = ADDITIONAL if ADDITIONAL in config and not config.get(EXTRA) else EXTRA
        self.has_list = key in config and not isinstance(config[key], dict)
        self._list(path, key, config.get(key))
        if isinstance(config.get(key), dict):
            self._list(path, ADDITIONAL, config.get(ADDITIONAL))

    def read_map(self, path: Path, entries: Mapping[str, Any]) -> None:
        for name, value in entries.items():
            if name in NAMES:
                self._name(path, name, value)
            elif name.endswith("_token") and isinstance(value, str | dict):
                self.late_specific[name] = _token(path, name, value)
        if EXTRA in entries:
            self._list(path, EXTRA, entries[EXTRA])
        elif not self.has_list:
            self._list(path, ADDITIONAL, entries.get(ADDITIONAL))

    def model_specific(self) -> dict[str, AddedToken]:
        """Return the tokens of other names: of the same name the first wins, and is in the place of the second."""
        return {**self.late_specific, **self.specific}

    def _name(self, path: Path, name: str, value: Any) -> None:
        self.given.add(name)
        self.named.pop(name, None)
        if value is not None:
            self.named[name] = _token(path, name, value)

    def _list(self, path: Path, key: str, value: Any) -> None:
        if isinstance(value, dict):
            self.specific |= {name: _token(path, f"{key}.{name}", token) for name, token in value.items()}
        elif isinstance(value, list):
            known = {token.content for token in self.extra}
            tokens = [_token(path, f"{key}[{index}]", token) for index, token in enumerate(value)]
            self.extra += [token for token in tokens if token.content not in known]
        elif value is not None:
            raise ValueError(f"{path}: {key} is {shown(value)}, expected a list or an object of tokens")


def _token(path: Path, key: str, value: Any) -> AddedToken:
    """Return a token that is written as its text, or as an object with ``content`` and flags."""
    entry = {"content": value, "special": True} if isinstance(value, str) else value
    content = entry.get("content") if isinstance(entry, dict) else None
    if not isinstance(content, str):
        raise ValueError(f"{path}: {key} is {shown(value)}, expected a text or an object with content")
    flags = {name: entry[name] for name in FLAGS if name in entry}
    wrong = next((name for name, flag in flags.items() if not isinstance(flag, bool)), None)
    if wrong:
        raise ValueError(f"{path}: {key}: {wrong} is {shown(flags[wrong])}, expected true or false")
    if path.name == MAP:  # the objects in this file have no such flag, or an old one
        flags["special"] = True
    return AddedToken(content, **flags)


def _by_id(path: Path, entries: Any) -> dict[int, AddedToken]:
    """Return the tokens of ``added_tokens_decoder``."""
    if entries is None:
        return {}
    if not isinstance(entries, dict) or not all(
        key.isascii() and key.isdigit() and len(key) < MAX_DIGITS for key in entries
    ):
        raise ValueError(f"{path}: {DECODER} is {shown(entries)}, expected an object with token ids as keys")
    return {int(key): _token(path, f"{DECODER}.{key}", value) for key, value in entries.items()}


def _added(path: Path, special: set[str]) -> dict[int, AddedToken]:
    """Return the tokens of added_tokens.json, an object of ids by text; ``special`` are those that are named."""
    found = {}
    for content, index in read_object(path).items():
        if not is_integer(index, 0):
            raise ValueError(f"{path}: the id of {shown(content)} is {shown(index)}, expected a whole number")
        found[index] = AddedToken(content, special=content in special, normalized=content not in special)
    return found
