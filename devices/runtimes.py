"""What an artifact runs in, and how well: intaglio, ONNX Runtime's providers, and the libraries on top of it.

``RUNTIMES`` lists all; docs/runtimes.md says what was run, and with which versions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..artifact import Manifest
from .findings import Finding
from .libraries import LIBRARIES, Library, obstacles
from .lint import GraphFacts, Placement
from .presets import DEVICES, DeviceName
from .rules import FIVE_BITS

Verdict = Literal["runs", "runs with a setting", "runs slowly", "runs in some packages", "does not run"]

EFFECTS: Mapping[str, Verdict] = {
    "fails": "does not run",
    "wrong": "does not run",
    "host": "runs slowly",
    "partly": "runs in some packages",
    "slow": "runs slowly",
    "setting": "runs with a setting",
}
"""The verdict that a finding, or an obstacle of a library, means."""

RANKS: tuple[Verdict, ...] = ("does not run", "runs in some packages", "runs slowly", "runs with a setting", "runs")

PROVIDERS: Mapping[DeviceName, str] = {
    "cuda": "ONNX Runtime, CUDA",
    "webgpu": "ONNX Runtime, WebGPU",
    "directml": "ONNX Runtime, DirectML",
    "qnn": "ONNX Runtime, QNN",
    "openvino": "OpenVINO",
}
CPU = ("intaglio, CPU", "ONNX Runtime, CPU")
RUNTIMES = (*CPU, *PROVIDERS.values(), *LIBRARIES)
"""The names of all runtimes, in the order of ``supported``."""


@dataclass(frozen=True)
class Reason:
    """Why an artifact does not run as it is, or not well, what to do, and where that is stated."""

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
        *(Support(name, *_on_cpu(name, facts)) for name in CPU),
        *(_on_device(device, facts) for device in DEVICES),
        *(_in_library(library, manifest, facts) for library in LIBRARIES),
    ]


def _on_cpu(name: str, facts: GraphFacts) -> tuple[Verdict, tuple[Reason, ...]]:
    if facts.activations == "bf16":
        reason = Reason("ONNX Runtime's CPU provider has no bf16", "export to fp32", "docs/OperatorKernels.md")
        return "does not run", (reason,)
    if facts.activations == "fp16":
        reason = Reason(
            "fp16 is computed in fp32 and converted back and forth", "export to fp32 for a CPU", "docs/export.md"
        )
        return "runs slowly", (reason,)
    if name != CPU[0] and any(matmul.joined for matmul in facts.matmuls):
        return "runs slowly", (Reason(FIVE_BITS, "quantize with --bits 4,8", "docs/artifact-format.md"),)
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


def _in_library(library: Library, manifest: Manifest, facts: GraphFacts) -> Support:
    found = obstacles(library, manifest, optional_input=facts.whole.optional_input)
    reasons = tuple(Reason(one.what, one.remedy, one.source) for one in found)
    return Support(library, _worst(EFFECTS[one.effect] for one in found), reasons)


def _worst(verdicts: Iterable[Verdict]) -> Verdict:
    return RANKS[min((RANKS.index(verdict) for verdict in verdicts), default=-1)]
