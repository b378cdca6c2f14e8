"""Checks of single operators, and the findings that follow from them and from the audit of the weights."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..report.result import Finding, TensorError, Verdict
from .hypotheses.mismatch import Cause


@dataclass(frozen=True, eq=False)
class Check:
    """The error of one operator, given the source's inputs, and the error that it may have.

    Args:
        weights: names of the operator's stored tensors.
        diagnose: returns the cause of the error; called only where the error exceeds the budget.
        scenario: the description of the scenario in which it exceeds the budget; empty for the first one.
    """

    module: str
    operator: str | None
    error: float
    budget: float
    diagnose: Callable[[], Cause]
    weights: tuple[str, ...] = ()
    scenario: str = ""

    @property
    def fails(self) -> bool:
        return self.error > self.budget

    def resolved(self) -> "Check":
        """Return the same check with its cause already found, so that it holds no activations or weights."""
        cause = self.diagnose() if self.fails else Cause("")
        return replace(self, diagnose=lambda: cause)

    @staticmethod
    def failed(module: str, budget: float, cause: str) -> "Check":
        """Return the check of an operator that is missing or does not run, with error 1."""
        return Check(module, None, 1.0, budget, lambda: Cause(cause))


def findings_of(checks: Sequence[Check], tensors: Sequence[TensorError]) -> list[Finding]:
    """Return a finding for each failed check, and for each faulty tensor, however small its effect.

    Args:
        checks: in the order of execution.
        tensors: the result of the audit.
    """
    faulty: dict[int, list[TensorError]] = {}
    shared = []
    for tensor in tensors:
        if tensor.fault is None:
            continue
        users = [i for i, check in enumerate(checks) if tensor.name in check.weights]
        users = users or [i for i, check in enumerate(checks) if tensor.module == check.module]
        if not users:  # such as RoPE's tables, which all layers share
            shared.append(Finding(tensor.module, None, tensor.error, 0.0, f"{tensor.name}: {tensor.fault}"))
            continue
        failing = [i for i in users if checks[i].fails]
        for i in failing or [max(users, key=lambda i: checks[i].error)]:
            faulty.setdefault(i, []).append(tensor)
    return shared + [_finding(check, faulty.get(i, [])) for i, check in enumerate(checks) if check.fails or i in faulty]


def _finding(check: Check, faulty: Sequence[TensorError]) -> Finding:
    faults = [f"{tensor.name}: {tensor.fault}" for tensor in faulty]
    cause = check.diagnose() if check.fails else None
    texts = list(faults)
    verdict: Verdict = "broken"
    module = check.module
    if cause is not None and not (faults and cause.general):
        texts.insert(0, f"with {check.scenario}: {cause.text}" if check.scenario else cause.text)
        verdict = "drifted" if cause.rounding and not faults else "broken"
        if cause.tap is not None:
            module = f"{_layer_path(module)}.{cause.tap}"
    return Finding(module, check.operator, check.error, check.budget, "; ".join(texts), verdict)


def _layer_path(module: str) -> str:
    """Return the path of the layer that a module belongs to."""
    match = re.match(r"(?:.*\.)?layers\.\d+", module)
    assert match is not None, module
    return match[0]


def merge_layers(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Merge findings with the same cause in the same module of several layers; the text names the other layers."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        module = re.sub(r"\blayers\.\d+", "layers", finding.module)
        groups.setdefault((module, re.sub(r"\blayer \d+", "layer", finding.cause)), []).append(finding)
    merged = []
    for members in groups.values():
        numbers = [int(match[1]) for member in members if (match := re.search(r"\blayers\.(\d+)", member.module))]
        others = [number for number in dict.fromkeys(numbers) if number != numbers[0]]
        also = f"; also in layer{'s' * (len(others) > 1)} {format_ranges(others)}" if others else ""
        merged.append(replace(members[0], cause=members[0].cause + also))
    return tuple(merged)


def format_ranges(numbers: Sequence[int]) -> str:
    """Return 1, 2, 3, 5 as "1 to 3, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
