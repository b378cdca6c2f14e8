"""The record of ``intaglio bench``, as a file of the artifact that it measured."""

import json
from dataclasses import dataclass
from pathlib import Path

from ..artifact import Manifest
from ..errors import UsageError
from ..files.json_fields import JSONFields
from ..files.json_file import parse_json, read_json

FIELDS = ("family", "task", "precision", "target")
RATES = ("prefill_tokens_per_second", "decode_tokens_per_second", "sentences_per_second")


@dataclass(frozen=True)
class Speed:
    """Medians, and where they were measured. What the task has no figure for is None."""

    machine: str
    device: str
    threads: int
    onnxruntime: str
    prompt_tokens: int | None
    prefill: float | None
    decode: float | None
    sentences: float | None
    peak_rss_bytes: int | None


def read_bench(path: str | Path, manifest: Manifest) -> bytes:
    """Read the output of ``intaglio bench --json``; return it without the paths of the machine.

    Raises:
        UsageError: the file is something else, or of another artifact.
    """
    remedy = "write it with `intaglio bench ARTIFACT --json > FILE`"
    try:
        values = read_json(Path(path))
        fields = JSONFields(values if isinstance(values, dict) else {}, str(path))
        _speed(fields)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; {remedy}") from None
    except ValueError as error:
        raise UsageError(f"{error}; {remedy}") from None
    for name in FIELDS:
        if values.get(name) != (expected := getattr(manifest, name)):
            raise UsageError(
                f"{path} is of another artifact: {name} is {values.get(name)!r}, not {expected!r}; {remedy}"
            )
    kept = {name: value for name, value in values.items() if name != "artifact"}
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def parse_speed(content: bytes | None) -> Speed | None:
    """Return the figures of a record; None where there is none that can be read."""
    if content is None:
        return None
    try:
        values = parse_json(content)
        return _speed(JSONFields(values if isinstance(values, dict) else {}, "bench.json"))
    except ValueError:
        return None


def _speed(fields: JSONFields) -> Speed:
    """Raises: ValueError: a field is missing or of another kind."""
    prefill, decode, sentences = (_median(fields, name) for name in RATES)
    if prefill is decode is sentences is None:
        raise fields.bad(RATES[1], "a measurement")
    machine, device, version = (fields.text(name) for name in ("machine", "device", "onnxruntime"))
    threads = fields.integer("threads", least=1)
    if machine is None or device is None or version is None or threads is None:
        raise fields.bad("machine", "a text, beside device, threads and onnxruntime")
    peak, prompt = fields.integer("peak_rss_bytes", least=0), fields.integer("prompt_tokens", least=1)
    return Speed(machine, device, threads, version, prompt, prefill, decode, sentences, peak)


def _median(fields: JSONFields, name: str) -> float | None:
    summary = fields.fields(name)
    return None if summary is None else summary.number("median")
