"""The page's words for verdicts, tasks and measures."""

import re
from collections.abc import Mapping

from ...artifact import Task
from ...models.family import FAMILIES
from ..report.report import Report
from ..report.result import Verdict
from . import numerals

VERDICT: Mapping[Verdict, str] = {"faithful": "Faithful", "drifted": "Drifted", "broken": "Broken"}
_PRECISIONS = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "int8": "8-bit weights",
    "int4": "4-bit weights",
}
_TARGETS = {"ort": "ONNX Runtime’s fused operators", "standard": "standard ONNX operators"}
_UNITS: Mapping[Task, str] = {"feature-extraction": "hidden states"}
_PLACES: Mapping[Task, str] = {"text-classification": "text"}
_CHOICES: Mapping[Task, str] = {
    "text-classification": "Same label",
    "token-classification": "Same tag",
    "question-answering": "Same span",
}
POINTLESS: Mapping[Task, tuple[str, ...]] = {
    "feature-extraction": ("top1", "top5", "flips", "near_ties"),
    "text-classification": ("top5",),
    "token-classification": ("top5",),
    "question-answering": ("top5",),
}
"""Figures that are meaningless for a task."""
SHARES = ("top1", "top5", "flips")
"""Measures whose limits are shares of the positions."""
_MEASURES = {
    "relative_error": "relative error",
    "max_difference": "largest difference",
    "mean_difference": "mean difference",
    "kl_mean": "mean KL divergence",
    "kl_p99": "99th percentile of the KL divergence",
    "kl_max": "greatest KL divergence",
    "top1": "Top-1 agreement",
    "top5": "Top-5 agreement",
    "near_ties": "near-ties",
}
_NAMES = {"flips": "share of flips"}
"""Names of measures in reasons."""


def meaning(report: Report) -> str:
    """Return what the verdict means for somebody who wants to use the artifact."""
    precision = _PRECISIONS[report.precision]
    if report.verdict == "faithful":
        cause = f"the rounding error of {precision}" if "bit" in precision else f"rounding in {precision}"
        return f"The artifact computes what its source computes. The differences are no more than {cause}."
    if report.verdict == "drifted":
        return (
            "The artifact is a less exact copy of its source. It differs by more than a faithful copy may, "
            f"but stays within the limits of {precision}; test it on your task before you use it."
        )
    return "The artifact does not compute what its source computes. Do not use it."


def copy_of(report: Report) -> str:
    """Return the precision with its article: ``an int4``."""
    return f"{'a' if report.precision == 'bf16' else 'an'} {report.precision}"


def card(report: Report) -> list[tuple[str, str, str]]:
    """Return the facts of the model: (name, value, kind); the kind is ``code`` for values in a monospaced font."""
    bits = report.bytes * 8 / report.parameters if report.parameters else 0
    memory = "" if report.peak_rss_bytes is None else f", {numerals.size(report.peak_rss_bytes)} of memory at the peak"
    took = f"in {numerals.duration(report.seconds)} on {report.device}"
    return [
        ("Artifact", report.artifact, ""),
        (
            "Model",
            f"{FAMILIES[report.family].title if report.family in FAMILIES else report.family}, {report.task}",
            "",
        ),
        ("Precision", f"{report.precision}: {_PRECISIONS[report.precision]}", ""),
        ("Target", f"{report.target}: {_TARGETS[report.target]}", ""),
        ("Parameters", f"{numerals.parameters(report.parameters)} ({report.parameters:,})", ""),
        ("On disk", f"{numerals.size(report.bytes)}, {numerals.number(bits)} bits a parameter", ""),
        ("Text", report.text, ""),
        ("Checked", f"{numerals.moment(report.date)}, {took}{memory}", ""),
        ("Source", report.source, ""),
        ("Digest", report.digest, "code"),
    ]


def last_part(path: str) -> str:
    """Return the last part of a folder's path."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def model_name(source: str) -> str:
    """Return a hub id unchanged, or the name of a folder."""
    folder = re.match(r"[/\\.~]|[A-Za-z]:", source) or len(re.split(r"[/\\]", source)) > 2
    return last_part(source) if folder else source


def operator(name: str, module: str) -> str:
    """Return a node's name without the prefix of its module."""
    return name.removeprefix(f"{module}/") or name


def unit(task: Task) -> str:
    """Return the name of a task's outputs."""
    return _UNITS.get(task, "logits")


def measure(name: str, task: Task) -> str:
    """Return a measure in words."""
    if name == "top1":
        return _CHOICES.get(task, "Top-1 agreement")
    if name == "flips":
        return f"flips, share of {place(task)}s"
    return _MEASURES.get(name, name)


def place(task: Task) -> str:
    """Return what a row of outputs belongs to: a position or a text."""
    return _PLACES.get(task, "position")


def heading(field: str, task: Task) -> str | None:
    """Return the heading of a column if the task has its own."""
    headings = {"top1": _CHOICES.get(task, "").removeprefix("Same "), "positions": f"{place(task)}s"}
    return headings.get(field) or None


def reason(text: str, task: Task) -> str:
    """Return a reason with its measures in words, and shares in percent."""

    def in_words(found: re.Match[str]) -> str:
        name, rest = found[1], found[2]
        if name in SHARES:
            rest = re.sub(r"\d[\d.e+-]*", lambda figure: numerals.percent(float(figure[0])), rest)
        return f"{_NAMES.get(name) or measure(name, task)}{rest}"

    return re.sub(rf"\b({'|'.join((*_MEASURES, 'flips'))})\b( is \S+, above \S+)", in_words, text)
