"""The summary that `export` and `quantize` print of a new artifact."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..artifact import Manifest
from .inspection.artifact import calibration_in_words
from .inspection.text_files import text_facts
from .inspection.weights import bits_per_weight, describe_formats, estimated_kl, stored_weights
from .show import print_facts, print_json
from .sizes import size


def print_summary(
    out: Path, manifest: Manifest, verdict: str, seconds: float, stages: Mapping[str, float], as_json: bool
) -> None:
    """Print the summary.

    Args:
        out: the artifact's folder.
        manifest: its manifest.
        verdict: the verdict of the comparison with the source.
        seconds: the time of the whole command.
        stages: the seconds of each stage.
        as_json: print one JSON document.
    """
    from ..machine import peak_rss

    total = sum(entry.size for entry in manifest.files.values())
    peak = peak_rss()
    weights = stored_weights(manifest)
    kl = estimated_kl(manifest, weights)
    if as_json:
        document: dict[str, Any] = {
            "artifact": str(out),
            "family": manifest.family,
            "task": manifest.task,
            "target": manifest.target,
            "precision": manifest.precision,
            "source": {"id": manifest.source.id, "revision": manifest.source.revision},
            "bytes": total,
            "parity": verdict,
            **text_facts(out, manifest.task),
            "seconds": round(seconds, 3),
            "stages": {name: round(part, 3) for name, part in stages.items()},
            "peak_rss_bytes": peak,
        }
        if manifest.calibration:
            document["calibration"] = [asdict(text) for text in manifest.calibration]
        if manifest.notes:
            document["notes"] = list(manifest.notes)
        if weights:
            document |= {"bits_per_weight": bits_per_weight(manifest), "estimated_kl": kl}
        print_json(document)
        return
    facts = [
        ("artifact", str(out)),
        ("model", f"{manifest.family}, {manifest.task}, {manifest.precision}, target {manifest.target}"),
        ("size", f"{size(total)} in {len(manifest.files)} files"),
    ]
    if manifest.calibration:
        facts.append(("text", f"calibrated on {calibration_in_words(manifest.calibration)}"))
    facts += [("note", note) for note in manifest.notes]
    facts += [(name, fact) for name, fact in text_facts(out, manifest.task).items() if fact.startswith("none")]
    facts.append(("parity", verdict))
    time = f"{seconds:.1f} s"
    if weights:
        facts += [("weights", describe_formats(weights)), ("", f"{bits_per_weight(manifest):.2f} bits per weight")]
        if kl is not None:
            facts.append(("KL", f"{kl:.3g} nats per token, estimated"))
        time += f": {', '.join(f'{name} {part:.1f} s' for name, part in stages.items())}"
    facts.append(("time", time))
    if peak is not None:
        facts.append(("memory", f"{size(peak)} peak"))
    print_facts(facts)
