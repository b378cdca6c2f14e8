"""The model card of a repository: README.md, made from the manifests and the records of its artifacts.

The template is ``card.md.jinja``. Names and texts that come with a model may come from anyone: the front matter is
written by a YAML library, and what goes into the Markdown is escaped by the filter ``md``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from .. import __version__
from ..artifact import Manifest, Precision, Source
from ..files.json_file import parse_json
from ..hub import HUB_ID
from .arrangement import Arrangement
from .bench import Speed, parse_speed
from .names import BENCH, stored_name
from .proof import Proof, parse_proof
from .snippets import TITLES, Chat, Snippet, runtimes, snippets

CARD_MARK = "<!-- Written by `intaglio push`; what is below this line is kept. -->"
"""The end of the card. Text of one's own goes below it."""

HUB = "https://huggingface.co"
SPECIAL = re.compile(r"[\\`*{}\[\]<>#|~&@$]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")
"""What Markdown, HTML and the hub give a meaning inside a line. An underscore between letters has none."""

WEIGHTS = {
    "fp32": "float32 weights",
    "fp16": "float16 weights",
    "bf16": "bfloat16 weights",
    "int8": "8-bit weights",
    "int4": "4-bit weights",
}
VERDICTS = {
    "faithful": "equal to the source up to the rounding of the precision",
    "drifted": "further from the source than a faithful copy, within what the precision may do; "
    "test it on your task before you use it",
    "broken": "does not compute what the source computes; do not use it",
    "not checked": "not compared with the source",
}

Read = Callable[[str], bytes | None]
"""Returns the content of a small file of the repository; None where there is none."""


@dataclass(frozen=True)
class Row:
    """An artifact of the card: its manifest, the sizes of its graph and weights, and its records."""

    manifest: Manifest
    weights: str
    verdict: str
    size: str
    proof: Proof | None
    speed: Speed | None


def make_card(arrangement: Arrangement, read: Read, repository: str, *, base_model: str | None = None) -> str:
    """Return README.md for a repository.

    Args:
        arrangement: the artifacts.
        read: reads their records.
        repository: the hub id.
        base_model: the hub id of the source, where it was exported from a local folder.
    """
    default = arrangement.default
    manifest = arrangement.artifacts[default]
    ordered = sorted(arrangement.artifacts.items(), key=lambda item: (item[0] != default, _bytes(item[1])))
    rows = [_row(one, default, read) for _, one in ordered]
    base = base_model or (manifest.source.id if _is_hub_id(manifest.source) else None)
    shown = snippets(manifest, repository, default, chat=_chat(arrangement, read))
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters |= {"md": escape, "size": size, "figure": figure, "percent": percent}
    text = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    body = environment.from_string(text).render(
        name=repository.split("/")[1],
        manifest=manifest,
        default=default,
        rows=rows,
        base=base,
        hub=HUB,
        snippets=shown,
        others=_elsewhere(rows, shown, default),
        license=_license(manifest.source, base, manifest.files),
        mark=CARD_MARK,
        version=__version__,
    )
    return f"---\n{_front_matter(manifest, base, [one.runtime for one in shown], rows)}\n---\n\n{body}"


def escape(text: object) -> str:
    """Return text so that Markdown and HTML show it as it is, in one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return SPECIAL.sub(lambda found: f"&#{ord(found[0])};", line)


def size(count: float) -> str:
    """Return bytes in decimal units: ``512 B``, ``1.05 MB``, ``1.98 GB``."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.2f} GB"


def figure(value: float | None) -> str:
    """Return three digits; ``–`` for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """Return a share as ``97.8 %``; ``–`` for None."""
    if share is None:
        return "–"
    text = f"{100 * share:.1f}"
    # 100 % and 0 % are said of nothing less.
    if text == "100.0" and share < 1:
        return "> 99.9 %"
    return f"{'< 0.1' if text == '0.0' and share > 0 else text} %"


def _row(manifest: Manifest, default: Precision, read: Read) -> Row:
    report, bench = (stored_name(name, manifest.precision, default) for name in ("parity.json", BENCH))
    arithmetic = manifest.model.cache_dtype
    mixed = manifest.precision in ("int8", "int4") and arithmetic != "float32"
    return Row(
        manifest=manifest,
        weights=WEIGHTS[manifest.precision] + (f", {arithmetic} arithmetic" if mixed else ""),
        verdict=VERDICTS[manifest.parity.verdict],
        size=size(_bytes(manifest)),
        proof=None if manifest.parity.verdict == "not checked" else parse_proof(read(report)),
        speed=parse_speed(read(bench)),
    )


def _bytes(manifest: Manifest) -> int:
    """Return the size of the graph and the weights."""
    return sum(manifest.files[name].size for name in (manifest.graph, manifest.data) if name in manifest.files)


def _is_hub_id(source: Source) -> bool:
    return source.revision is not None and HUB_ID.fullmatch(source.id) is not None


def _chat(arrangement: Arrangement, read: Read) -> Chat:
    """Return where the chat template is."""
    try:
        settings = parse_json(read("tokenizer_config.json") or b"{}")
    except ValueError:
        settings = {}
    if isinstance(settings, dict) and settings.get("chat_template"):
        return "settings"
    return "file" if "chat_template.jinja" in arrangement.artifacts[arrangement.default].files else None


def _elsewhere(rows: list[Row], shown: list[Snippet], default: Precision) -> list[str]:
    """Return the runtimes that run another precision of the repository, but not the default."""
    known = {one.runtime for one in shown}
    found = {runtime for row in rows for runtime in runtimes(row.manifest, default)}
    return [TITLES[runtime] for runtime in TITLES if runtime in found - known]


def _license(source: Source, base: str | None, files: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the licence for the front matter and for the text."""
    card = source.card
    if card is None:
        return {"license": None, "license_name": None, "license_link": None}
    link = card.license_link
    if link is not None and link not in files and not re.match(r"https?://", link):
        plain = (
            re.fullmatch(r"[A-Za-z0-9][\w.-]*", link) is not None and base is not None and source.revision is not None
        )
        link = f"{HUB}/{base}/blob/{source.revision}/{link}" if plain else None
    return {"license": card.license, "license_name": card.license_name, "license_link": link}


def _front_matter(manifest: Manifest, base: str | None, runs: list[str], rows: list[Row]) -> str:
    """Return the metadata by which the hub finds and describes the repository, as YAML."""
    from huggingface_hub import ModelCardData

    source = manifest.source
    terms = _license(source, base, manifest.files)
    if terms["license"] != "other":
        terms["license_name"] = None
    languages = list(source.card.languages) if source.card is not None else []
    merged = [one.id for one in source.adapters if one.revision is not None and HUB_ID.fullmatch(one.id)]
    bases = base if base is None or not merged else [base, *merged]
    data = ModelCardData(
        language=languages or None,
        license=terms["license"],
        license_name=terms["license_name"],
        license_link=terms["license_link"] if terms["license"] == "other" else None,
        base_model=bases,
        library_name="transformers.js" if "transformers.js" in runs else "onnx",
        pipeline_tag=manifest.task,
        tags=list(dict.fromkeys(["onnx", *runs, manifest.family, *(row.manifest.precision for row in rows)])),
        base_model_relation=None if base is None else "merge" if source.adapters else "quantized",
    )
    return data.to_yaml()
