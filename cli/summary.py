"""What `export` and `quantize` say of the artifact they have written."""

from collections.abc import Mapping
from pathlib import Path

from ..artifact import Manifest
from .inspection.weights import bits_per_weight, estimated_kl, in_words, weights_of
from .show import print_facts, print_json, size


def print_summary(
    out: Path, manifest: Manifest, verdict: str, seconds: float, stages: Mapping[str, float], as_json: bool
) -> None:
    """Print it.

    Args:
        verdict: of the comparison with the source.
        seconds: the whole took.
        stages: of that, each stage took.
    """
    from ..runtime.engine.machine import peak_rss

    total = sum(entry.size for entry in manifest.files.values())
    peak = peak_rss()
    weights = weights_of(manifest)
    kl = estimated_kl(manifest, weights)
    if as_json:
        told = {
            "artifact": str(out),
            "family": manifest.family,
            "task": manifest.task,
            "target": manifest.target,
            "precision": manifest.precision,
            "source": {"id": manifest.source.id, "revision": manifest.source.revision},
            "bytes": total,
            "parity": verdict,
            "seconds": round(seconds, 3),
            "stages": {name: round(taken, 3) for name, taken in stages.items()},
            "peak_rss_bytes": peak,
        }
        if weights:
            told |= {"bits_per_weight": bits_per_weight(manifest), "estimated_kl": kl}
        print_json(told)
        return
    facts = [
        ("artifact", str(out)),
        ("model", f"{manifest.family}, {manifest.task}, {manifest.precision}, target {manifest.target}"),
        ("size", f"{size(total)} in {len(manifest.files)} files"),
    ]
    facts.append(("parity", verdict))
    took = f"{seconds:.1f} s"
    if weights:
        facts += [("weights", in_words(weights)), ("", f"{bits_per_weight(manifest):.2f} bits per weight")]
        if kl is not None:
            facts.append(("damage", f"{kl:.3g} nats per token, as estimated"))
        took += f": {', '.join(f'{name} {taken:.1f} s' for name, taken in stages.items())}"
    facts.append(("time", took))
    if peak is not None:
        facts.append(("memory", f"{size(peak)} at its peak"))
    print_facts(facts)
