"""`--dry-run` of `export` and `quantize`: print what would be written and what it would take, and write nothing."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .options import Making
from .show import print_facts, print_json
from .sizes import duration, size

if TYPE_CHECKING:
    from ..exporter.estimate.estimate import Estimate
    from ..exporter.quantize.options import QuantizedPrecision, QuantizeOptions

PHASES = {"text": "writing text", "calibration": "GPTQ", "weights": "writing the weights"}


def dry_run(
    source: str,
    out: Path,
    precision: "QuantizedPrecision",
    options: "QuantizeOptions",
    making: Making,
    as_json: bool,
) -> None:
    """Estimate the quantization of ``source`` and print it; errors as ``estimate``."""
    from ..exporter.estimate.estimate import estimate

    found = estimate(
        source,
        precision=precision,
        options=options,
        task=making.task,
        target=making.target,
        device=making.device,
        attention=making.attention,
        ignore_auto_map=making.ignore_auto_map,
        ignore_adapter=making.ignore_adapter,
        revision=making.revision,
    )
    if as_json:
        print_json({"dry_run": True, "artifact": str(out), **asdict(found), "peak_rss_bytes": found.memory})
    else:
        print_facts(_facts(found, out))


def _facts(found: "Estimate", out: Path) -> list[tuple[str, str]]:
    """Return the lines."""
    weights = size(found.least) if found.least == found.most else f"{size(found.least)} to {size(found.most)}"
    stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in found.seconds.items())
    facts = [
        ("dry run", f"{out} is not written"),
        ("model", f"{found.family}, {found.task}, {found.precision}, target {found.target}, method {found.method}"),
        ("weights", f"{weights} for {found.parameters:,} parameters"),
        ("time", f"about {duration(sum(found.seconds.values()))}: {stages}"),
        ("", "from multiplications timed on this machine just now; without reading the files and the parity check"),
    ]
    if found.memory is not None:
        name = max(found.phases, key=lambda phase: found.phases[phase])
        free = "" if found.free is None else f"; {size(found.free)} are free"
        facts.append(("memory", f"about {size(found.memory)} peak, in {PHASES.get(name, name)}{free}"))
    return facts
