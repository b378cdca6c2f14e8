"""What an artifact runs in, and how well: intaglio, ONNX Runtime's providers, and the libraries on top of it.

``RUNTIMES`` lists all; docs/runtimes.md says what was run, and with which versions.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..artifact import Manifest
from .findings import Finding
from .lint import GraphFacts, Placement
from .presets import DEVICES, DeviceName

Verdict = Literal["runs", "runs slowly", "runs in some packages", "does not run"]

EFFECTS: Mapping[str, Verdict] = {
    "fails": "does not run",
    "wrong": "does not run",
    "host": "runs slowly",
    "partly": "runs in some packages",
    "slow": "runs slowly",
}
"""The verdict that a finding means."""

RANKS: tuple[Verdict, ...] = ("does not run", "runs in some packages", "runs slowly", "runs")

PROVIDERS: Mapping[DeviceName, str] = {
    "cuda": "ONNX Runtime, CUDA",
    "webgpu": "ONNX Runtime, WebGPU",
    "directml": "ONNX Runtime, DirectML",
    "qnn": "ONNX Runtime, QNN",
    "openvino": "OpenVINO",
}
CPU = ("intaglio, CPU", "ONNX Runtime, CPU")
GENAI, OPTIMUM, TRANSFORMERS_JS = "onnxruntime-genai", "optimum", "transformers.js"
RUNTIMES = (*CPU, *PROVIDERS.values(), GENAI, OPTIMUM, TRANSFORMERS_JS)
"""The names of all runtimes, in the order of ``supported``."""

JS_TASKS = ("text-generation", "feature-extraction")
"""The tasks of Qwen2 that transformers.js 4.3 has a class for (src/models/registry.js)."""


@dataclass(frozen=True)
class Reason:
    """Why an artifact does not run, or not well, what to do, and where that is stated."""

    what: str
    remedy: str
    source: str


@dataclass(frozen=True)
class Support:
    """What a runtime makes of an artifact."""

    runtime: str
    verdict: Verdict
    reasons: tuple[Reason, ...] = ()


def supported(folder: Path, manifest: Manifest) -> list[Support]:
    """Return what each runtime makes of an artifact, from its manifest and its graph; the weights are not read.

    Raises:
        OSError, ValueError: the graph cannot be read, or is not a graph.
    """
    facts = GraphFacts(folder / manifest.graph, manifest)
    return [
        *(Support(name, *_on_cpu(facts)) for name in CPU),
        *(_on_device(device, facts) for device in DEVICES),
        _support(GENAI, _genai(manifest, facts)),
        _support(OPTIMUM, _optimum(manifest, facts)),
        _support(TRANSFORMERS_JS, _transformers_js(manifest, facts)),
    ]


def _on_cpu(facts: GraphFacts) -> tuple[Verdict, tuple[Reason, ...]]:
    if facts.activations == "bf16":
        reason = Reason("ONNX Runtime's CPU provider has no bf16", "export to fp32", "docs/OperatorKernels.md")
        return "does not run", (reason,)
    if facts.activations == "fp16":
        reason = Reason(
            "fp16 is computed in fp32 and converted back and forth", "export to fp32 for a CPU", "docs/export.md"
        )
        return "runs slowly", (reason,)
    return "runs", ()


def _on_device(device: DeviceName, facts: GraphFacts) -> Support:
    found = facts.findings(device)
    reasons = [_reason(finding) for finding in found]
    verdict = _worst(EFFECTS[finding.effect] for finding in found)
    placed = facts.placement(device)
    if verdict != "does not run" and placed.floats:
        verdict = _worst((verdict, "runs slowly"))
        reasons.append(Reason(_on_the_cpu(placed), "export with the preset of the device", "devices/kernels.py"))
    return Support(PROVIDERS[device], verdict, tuple(reasons))


def _reason(finding: Finding) -> Reason:
    more = f" ({finding.count} nodes)" if finding.count > 1 else ""
    return Reason(finding.reason + more, finding.remedy, finding.source)


def _on_the_cpu(placed: Placement) -> str:
    names = ", ".join(f"{name.rpartition(':')[2]} {count}" for name, count in placed.floats.items())
    return f"nodes on the CPU, with a copy there and back: {names}"


def _support(runtime: str, reasons: Iterator[tuple[Verdict, Reason]]) -> Support:
    found = list(reasons)
    return Support(runtime, _worst(verdict for verdict, _ in found), tuple(reason for _, reason in found))


def _worst(verdicts: Iterable[Verdict]) -> Verdict:
    return RANKS[min((RANKS.index(verdict) for verdict in verdicts), default=-1)]


def _without_manual_input(manifest: Manifest, facts: GraphFacts) -> Iterator[tuple[Verdict, Reason]]:
    """Yield what keeps a library out that gives no ``logits_to_keep``, or looks for files of format 3."""
    if manifest.format_version < 3:
        yield "does not run", Reason("the artifact has format 2", "export the model again", "docs/artifact-format.md")
    if manifest.task == "text-generation" and not facts.whole.optional_input:
        yield (
            "does not run",
            Reason("it does not give the input logits_to_keep", "export without --for openvino", "docs/export.md"),
        )
    if facts.activations == "bf16":
        yield "runs slowly", Reason("bf16 runs on CUDA alone", "export to fp32 for a CPU", "docs/OperatorKernels.md")


def _genai(manifest: Manifest, facts: GraphFacts) -> Iterator[tuple[Verdict, Reason]]:
    if manifest.task != "text-generation":
        yield "does not run", Reason("it generates text only", "use ONNX Runtime, or optimum", "docs/runtimes.md")
        return
    yield from _without_manual_input(manifest, facts)


def _optimum(manifest: Manifest, facts: GraphFacts) -> Iterator[tuple[Verdict, Reason]]:
    yield from _without_manual_input(manifest, facts)


def _transformers_js(manifest: Manifest, facts: GraphFacts) -> Iterator[tuple[Verdict, Reason]]:
    source = "transformers.js 4.3, src/models/registry.js"
    if manifest.family != "qwen2":
        yield "does not run", Reason(f"it knows no {manifest.family}", "use onnxruntime-web, or -node", source)
    elif manifest.task not in JS_TASKS:
        what = f"it has no class for {manifest.task} of {manifest.family}"
        yield "does not run", Reason(what, "use onnxruntime-web, or -node", source)
    yield from _without_manual_input(manifest, facts)
