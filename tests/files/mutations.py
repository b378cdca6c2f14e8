"""Mutations of the files of a checkpoint or an artifact, each reproducible from a seed."""

import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from intaglio.artifact import MANIFEST

Random = random.Random

RAW = "@raw:"
"""A string value that begins so is written to the file without its quotes: for what ``json.dumps`` cannot write."""

NUMBERS = (
    *(-1, 0, 1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63, 2**64, -(2**63), 10**30, 6_000_000),
    *(0.0, -0.0, 0.5, 1.5, 1e-320, 1e15, 1e300, float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *(
        "",
        " ",
        "a",
        "0",
        "-1",
        "1e999",
        "null",
        "default",
        "x" * 5_000,
        "\x00",
        "\x1b]0;x\x07",
        "e\u0301",
        "\U0010ffff",
    ),
    *("../..", "/etc/passwd", "{{ 1/0 }}", "{% for i in range(10**9) %}x{% endfor %}", "{{ messages[9].x.y }}"),
    *("{% include 'x' %}", "{{ messages }}"),
)
NESTED: tuple[Any, ...] = (
    *([], {}, [[]], [{}], [None], {"": None}, {"a": {"b": {}}}, [0], [-1], [2**70], ["a", 1, None, []], {"0": "a"}),
    *({"1": 1}, [1.5] * 8, ["a"] * 50, [0] * 5_000, {"content": 1}, {"content": "x"}),
    [{"name": "default", "template": 1}],
)
WRITTEN = (
    *(f"{RAW}{'9' * 400}", f"{RAW}-{'1' * 401}", f"{RAW}1e400", f'{RAW}"\\ud800"', f'{RAW}{{"a": 1, "a": 2}}'),
    *(f"{RAW}{'[' * 2_000}{']' * 2_000}", f"{RAW}{'[' * 100_000}", f"{RAW}NaN", f'{RAW}"\\u0000"', f"{RAW}0x10"),
)
VALUES: tuple[Any, ...] = (None, True, False, *NUMBERS, *TEXTS, *NESTED, *WRITTEN)

KEYS: dict[str, tuple[str, ...]] = {
    "config.json": tuple(
        """architectures model_type vocab_size hidden_size intermediate_size num_hidden_layers
        num_attention_heads num_key_value_heads head_dim rms_norm_eps max_position_embeddings
        original_max_position_embeddings tie_word_embeddings rope_theta rope_scaling rope_parameters
        pad_token_id id2label label2id num_labels problem_type sliding_window layer_types use_sliding_window
        max_window_layers sliding_window_pattern hidden_act torch_dtype dtype partial_rotary_factor
        quantization_config auto_map is_causal attention_bias eos_token_id bos_token_id use_mrope
        dual_chunk_attention_config attention_dropout do_sample temperature top_k num_beams max_length""".split()
    ),
    "generation_config.json": tuple(
        """eos_token_id bos_token_id pad_token_id do_sample temperature top_k top_p min_p repetition_penalty
        max_new_tokens max_length min_length min_new_tokens no_repeat_ngram_size bad_words_ids
        suppress_tokens begin_suppress_tokens sequence_bias forced_eos_token_id forced_bos_token_id
        stop_strings num_beams num_beam_groups length_penalty num_return_sequences typical_p epsilon_cutoff
        eta_cutoff max_time penalty_alpha guidance_scale early_stopping exponential_decay_length_penalty
        renormalize_logits watermarking_config transformers_version""".split()
    ),
    "tokenizer_config.json": tuple(
        """chat_template added_tokens_decoder additional_special_tokens extra_special_tokens bos_token
        eos_token unk_token pad_token sep_token cls_token mask_token tokenizer_class model_max_length
        split_special_tokens add_bos_token add_eos_token add_prefix_space clean_up_tokenization_spaces
        image_token legacy""".split()
    ),
    "special_tokens_map.json": tuple(
        "bos_token eos_token unk_token pad_token sep_token additional_special_tokens extra_special_tokens".split()
    ),
    "added_tokens.json": ("<a>", "<b>", "", "é"),
    "vocab.json": ("<a>", "", "é", "a b"),
    "tokenizer.json": tuple(
        "truncation padding added_tokens normalizer pre_tokenizer post_processor decoder model".split()
    ),
    "model.safetensors.index.json": ("weight_map", "metadata"),
    "quantization_config": tuple(
        """quant_method bits group_size desc_act sym checkpoint_format version zero_point modules_to_not_convert
        dynamic pack_dtype lm_head true_sequential static_groups backend format config_groups ignore
        quantization_status kv_cache_scheme sparsity_config weight_block_size activation_scheme fmt
        load_in_4bit load_in_8bit bnb_4bit_quant_type bnb_4bit_use_double_quant bnb_4bit_compute_dtype
        llm_int8_skip_modules mode peft_type r lora_alpha rank_pattern alpha_pattern target_modules use_dora
        use_rslora bias modules_to_save fan_in_fan_out layers_to_transform""".split()
    ),
    MANIFEST: ("format_version", "model", "tensors", "files", "parity", "operators"),
}
ABSENT = ("generation_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "vocab.json")
"""Files that a folder need not have, and that are read where it has them."""


def mutate(folder: Path, choice: Random) -> str:
    """Change one or two files of a folder; return what was changed."""
    done = [_mutate_one(folder, choice)]
    if choice.random() < 0.15:
        done.append(_mutate_one(folder, choice))
    if (folder / MANIFEST).is_file() and choice.random() < 0.8:
        _agree(folder)
        done.append("manifest agrees")
    return "; ".join(done)


def _mutate_one(folder: Path, choice: Random) -> str:
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if not names:
        return "nothing is left"
    name = choice.choice(names)
    if choice.random() < 0.05:
        name = choice.choice(ABSENT)
        (folder / name).write_text("{}")
    path = folder / name
    if choice.random() < 0.07:
        return f"{name}: {_replace(path, choice)}"
    content = path.read_bytes()
    kind = choice.random()
    if name.endswith(".json") and kind < 0.8:
        changed, what = _mutate_json(name, content, choice)
    elif name.endswith(".safetensors") and kind < 0.7:
        changed, what = _mutate_header(content, choice)
    elif name.endswith(".onnx") and kind < 0.7:
        changed, what = _mutate_message(content, choice)
    elif name.endswith(".jinja") and kind < 0.5:
        text = choice.choice(TEXTS)
        changed, what = text.encode(), f"template {text[:30]!r}"
    else:
        changed, what = _mutate_bytes(content, choice)
    path.write_bytes(changed)
    return f"{name}: {what}"


def _replace(path: Path, choice: Random) -> str:
    """Put something else in the place of a file."""

    def another() -> None:
        path.write_bytes(choice.choice(sorted(p for p in path.parent.iterdir() if p.is_file())).read_bytes())

    def linked(target: str) -> Callable[[], None]:
        def link() -> None:
            path.unlink()
            path.symlink_to(target)

        return link

    def pipe() -> None:
        path.unlink()
        os.mkfifo(path)

    def directory() -> None:
        path.unlink()
        path.mkdir()

    def forbidden() -> None:
        path.chmod(0)

    ways: dict[str, Callable[[], None]] = {
        "missing": path.unlink,
        "a folder": directory,
        "a pipe": pipe,
        "a link to a device": linked("/dev/zero"),
        "a link to nothing": linked("nothing"),
        "a link to itself": linked(path.name),
        "a link to the folder": linked("."),
        "another file": another,
        "unreadable": forbidden,
        "empty": lambda: os.truncate(path, 0),
    }  # fmt: skip
    what = choice.choice(sorted(ways))
    ways[what]()
    return what


def _mutate_bytes(content: bytes, choice: Random) -> tuple[bytes, str]:
    changed = bytearray(content)
    at = choice.randrange(len(changed) + 1)
    end = min(len(changed), at + choice.choice((1, 4, 16, 100)))
    what = choice.choice(("flip", "truncate", "delete", "insert", "zero", "repeat", "extend", "text", "nest"))
    if what == "flip":
        for _ in range(choice.choice((1, 1, 2, 8))):
            if changed:
                changed[choice.randrange(len(changed))] = choice.randrange(256)
    elif what == "truncate":
        del changed[at:]
    elif what == "delete":
        del changed[at:end]
    elif what == "insert":
        changed[at:at] = choice.randbytes(choice.choice((1, 4, 100)))
    elif what == "zero":
        changed[at:end] = bytes(end - at)
    elif what == "repeat":
        changed[at:at] = changed[at:end] * choice.choice((1, 20))
    elif what == "extend":
        changed += choice.randbytes(64)
    elif what == "text":
        changed[at:at] = choice.choice(("\ufeff", "\u2028", "\x00", "é", '"', "}", "[", "{%", "}}", "\r")).encode()
    else:
        changed = bytearray((b"[", b'{"a":', b"{{", b"(")[choice.randrange(4)] * choice.choice((200, 100_000)))
    return bytes(changed), f"{what} at {at}"


def _mutate_json(name: str, content: bytes, choice: Random) -> tuple[bytes, str]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _mutate_bytes(content, choice)
    changed, what = mutate_value(name, value, choice)
    return dumps(changed), what


def mutate_value(name: str, value: Any, choice: Random) -> tuple[Any, str]:
    """Change a JSON value, or one inside of it; return it, and what was changed.

    Args:
        name: the key of ``KEYS`` with the names that may be added.
    """
    new = choice.choice(VALUES)
    places = [place for place in _places(value, name == "tokenizer.json") if place[1] is not None]
    if not places or choice.random() < 0.02:
        return new, f"all = {str(new)[:30]!r}"
    # Places near the top are as likely as the many deep ones.
    depth = choice.choice(sorted({len(place[0]) for place in places}))
    path, holder, key = choice.choice([place for place in places if len(place[0]) == depth])
    where = ".".join(map(str, path))
    what = choice.choice(("set", "set", "set", "delete", "add", "swap", "scale"))
    if what == "delete":
        del holder[key]
        return value, f"{where} deleted"
    if what == "add" and isinstance(value, dict):
        added = choice.choice(KEYS.get(name, ("x",)))
        value[added] = new
        return value, f"{added} = {str(new)[:40]!r}"
    if what == "swap":
        holder[key] = choice.choice(places)[1]
        return value if _is_tree(value) else None, f"{where} swapped"
    old = holder[key]
    if what == "scale" and isinstance(old, int | float):
        holder[key] = old * choice.choice((-1, 0, 2, 1000, 2**40)) + choice.choice((-1, 0, 1))
        return value, f"{where} scaled to {holder[key]}"
    holder[key] = new
    return value, f"{where} = {str(new)[:40]!r}"


def _places(value: Any, shallow: bool) -> list[tuple[tuple[Any, ...], Any, Any]]:
    """Return (path, holder, key) of every value inside; of long lists and objects the first few."""
    found: list[tuple[tuple[Any, ...], Any, Any]] = []
    rest: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while rest:
        path, one = rest.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys[: 20 if shallow else 200]:
            found.append(((*path, key), one, key))
            rest.append(((*path, key), one[key]))
    return found


def _is_tree(value: Any) -> bool:
    """Return False for a value that holds itself."""
    try:
        json.dumps(value)
    except (ValueError, RecursionError):
        return False
    return True


def dumps(value: Any) -> bytes:
    """Return a value as JSON; a string that begins with ``RAW`` stands for itself without its quotes."""
    text = json.dumps(value, ensure_ascii=False)
    for raw in WRITTEN:
        text = text.replace(json.dumps(raw, ensure_ascii=False), raw.removeprefix(RAW))
    return text.encode("utf-8", "surrogatepass")


def _mutate_header(content: bytes, choice: Random) -> tuple[bytes, str]:
    """Change the JSON header of a safetensors file, or its length."""
    if len(content) < 8:
        return _mutate_bytes(content, choice)
    (size,) = struct.unpack("<Q", content[:8])
    if choice.random() < 0.1:
        length = choice.choice((0, 1, 7, size - 1, size + 1, 2**31, 2**62, 2**64 - 1, len(content)))
        return struct.pack("<Q", length) + content[8:], f"header of {length} bytes"
    try:
        value, what = mutate_value("header", json.loads(content[8 : 8 + size]), choice)
    except (ValueError, RecursionError):
        return _mutate_bytes(content, choice)
    header = dumps(value)
    return struct.pack("<Q", len(header)) + header + content[8 + size :], f"header {what}"


def _mutate_message(content: bytes, choice: Random) -> tuple[bytes, str]:
    """Change a field anywhere in a protobuf message."""
    try:
        fields = _fields(content)
    except (ValueError, IndexError):
        return _mutate_bytes(content, choice)
    if not fields:
        return _mutate_bytes(content, choice)
    index = choice.randrange(len(fields))
    number, wire, value = fields[index]
    if wire == 2 and isinstance(value, bytes) and choice.random() < 0.85:
        inner, what = _mutate_message(value, choice)
        fields[index] = (number, wire, inner)
        return _message(fields), f"{number}.{what}"
    what = choice.choice(("delete", "repeat", "set", "set", "number"))
    if what == "delete":
        del fields[index]
    elif what == "repeat":
        fields.insert(index, fields[choice.randrange(len(fields))])
    elif what == "number":
        fields[index] = (choice.randrange(1, 30), wire, value)
    elif wire == 0:
        value = choice.choice((0, 1, 2, 3, 7, 10, 16, 255, 2**31 - 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1))
        fields[index] = (number, wire, value)
    elif isinstance(value, bytes):
        fields[index] = (number, wire, choice.choice((b"", value[:-1], value + b"x", b"x" * 300, value * 2)))
    return _message(fields), f"{number} {what}"


Fields = list[tuple[int, int, int | bytes]]


def _fields(message: bytes) -> Fields:
    found: Fields = []
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            found.append((tag >> 3, wire, value))
            continue
        size = 8 if wire == 1 else 4
        if wire == 2:
            size, at = _varint(message, at)
        elif wire not in (1, 5):
            raise ValueError("not a message")
        if at + size > len(message) or tag >> 3 == 0:
            raise ValueError("not a message")
        found.append((tag >> 3, wire, message[at : at + size]))
        at += size
    return found


def _message(fields: Fields) -> bytes:
    parts = []
    for number, wire, value in fields:
        parts.append(_encoded(number << 3 | wire))
        if isinstance(value, int):
            parts.append(_encoded(value))
        else:
            parts.append((_encoded(len(value)) if wire == 2 else b"") + value)
    return b"".join(parts)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("not a message")
        value |= (message[at] & 0x7F) << shift
        shift += 7
        at += 1
        if message[at - 1] < 0x80:
            return value, at


def _encoded(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*parts, value))


def _agree(folder: Path) -> None:
    """Make the sizes and checksums in the manifest agree with the files, as its author would."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        for name, entry in manifest["files"].items():
            file = folder / name
            if name == Path(name).name and file.is_file() and not file.is_symlink():
                data = file.read_bytes()
                entry["sha256"], entry["size"] = hashlib.sha256(data).hexdigest(), len(data)
        path.write_text(json.dumps(manifest), encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
