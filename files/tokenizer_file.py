"""The reader of a folder's tokenizer files: ``tokenizer.json`` with the repairs of transformers' ``AutoTokenizer``.

The runtime encodes prompts with it and the exporter the calibration text, so that a model is calibrated on the token
ids that it runs with.
"""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from .json_file import read_object
from .library_errors import library_errors
from .regular_file import is_there, read_regular
from .special_tokens import CONFIG, GPT2, QWEN2, class_of, read_special_tokens

MAX_BYTES = 1 << 28
"""The most bytes of tokenizer.json and merges.txt; the longest published ones have 35 MB."""

BUFFER = "Cannot instantiate Tokenizer from buffer: "
"""What tokenizers says before what is wrong with a tokenizer.json."""

FILE = "tokenizer.json"
VOCABULARY = ("vocab.json", "merges.txt")
"""The files of a byte-level BPE model that are read where there is no tokenizer.json."""

QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer: contractions, words, single digits, punctuation, line ends, white space."""

ENDS = ("bos", "eos")


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Read ``tokenizer.json``, or build it from ``vocab.json`` and ``merges.txt``, and add the declared tokens.

    The special tokens around a text are those of the file's template; ``add_bos_token`` and ``add_eos_token`` in
    tokenizer_config.json count only where there is no tokenizer.json, as in transformers 5. The normalizer, the
    pre-tokenizer and the added tokens of tokenizer.json stay; for a Qwen2 model transformers 5 puts the usual ones in
    their place, and drops added tokens that an ``added_tokens_decoder`` leaves out.

    Returns:
        the tokenizer, without truncation and padding; None where ``missing_tokenizer`` says why.

    Raises:
        ValueError: one of the files cannot be read. The message names the file and the reason.
    """
    if missing_tokenizer(folder):
        return None
    config = read_object(folder / CONFIG)
    from_file = is_there(folder / FILE)
    tokenizer = _from_file(folder / FILE) if from_file else _from_vocabulary(folder, config)
    tokens = read_special_tokens(folder, tokenizer)
    # The file may hold the settings of a training run; here callers truncate and pad.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = bool(config.get("split_special_tokens", False))
    if tokenizer.normalizer is None and tokens.tokenizer_class == QWEN2:
        # Qwen2's tokenizer composes to NFC; converted tokenizer.json files lose it, and AutoTokenizer puts it back.
        tokenizer.normalizer = normalizers.NFC()
    tokens.add_to(tokenizer)
    if not from_file:
        bos, eos = (tokens.named.get(f"{end}_token") if config.get(f"add_{end}_token") else None for end in ENDS)
        _surround(tokenizer, bos, eos)
    return tokenizer


def missing_tokenizer(folder: Path) -> str | None:
    """Return why a folder has no tokenizer, as a part of a sentence; None where it has one.

    Raises:
        ValueError: a file cannot be read.
    """
    if is_there(folder / FILE):
        return None
    if not all(is_there(folder / name) for name in VOCABULARY):
        return "no tokenizer.json, nor vocab.json with merges.txt"
    named = class_of(folder, read_object(folder / CONFIG))
    if named in (QWEN2, GPT2):
        return None
    return (
        f"no tokenizer.json, and a {named or 'tokenizer without a class'} cannot be built from vocab.json and "
        f"merges.txt ({QWEN2} and {GPT2} can)"
    )


def named_tokens(folder: Path) -> dict[str, str]:
    """Return the text of each token that the files name, by its name; errors as ``read_special_tokens``."""
    return {name: token.content for name, token in read_special_tokens(folder).named.items()}


def special_contents(folder: Path) -> set[str]:
    """Return the texts of all tokens that the files name or list as special; errors as ``read_special_tokens``."""
    found = read_special_tokens(folder)
    return {token.content for token in (*found.named.values(), *found.extra)}


def _from_file(path: Path) -> Tokenizer:
    data = read_regular(path, MAX_BYTES)
    with library_errors(lambda reason: ValueError(f"{path} cannot be read ({reason.removeprefix(BUFFER)})")):
        return Tokenizer.from_buffer(data)  # it decodes the file itself


def _from_vocabulary(folder: Path, config: dict[str, Any]) -> Tokenizer:
    """Build the byte-level BPE tokenizer of ``vocab.json`` and ``merges.txt``, as its class in transformers 5 does."""
    path, merges = (folder / name for name in VOCABULARY)
    vocabulary = read_object(path)
    data = read_regular(merges, MAX_BYTES)
    with library_errors(lambda reason: ValueError(f"{path} and {merges.name} cannot be read ({reason})")):
        lines = [line for line in data.decode().splitlines() if line and not line.startswith("#version")]
        pairs = [(left, right) for left, right in (line.split(" ") for line in lines)]
        model = models.BPE(vocabulary, pairs, continuing_subword_prefix="", end_of_word_suffix="")
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.ByteLevel()
    prefix = bool(config.get("add_prefix_space", False))
    if class_of(folder, config) == QWEN2:
        tokenizer.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated")
        characters = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, characters])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return tokenizer


def _surround(tokenizer: Tokenizer, first: AddedToken | None, last: AddedToken | None) -> None:
    """Put each text between two tokens."""
    ids = {token.content: tokenizer.token_to_id(token.content) for token in (first, last) if token is not None}
    if not ids:
        return
    before, after = ([] if token is None else [token.content] for token in (first, last))
    single = [*before, "$A", *after]
    pair = [*single, *(f"{token}:1" for token in before), "$B:1", *(f"{token}:1" for token in after)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(content, id) for content, id in ids.items() if id is not None]
    )
