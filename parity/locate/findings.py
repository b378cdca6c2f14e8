"""From the errors of places to findings: what exceeds its budget, what an audit of the weights says, and why."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..report.result import Finding, TensorError, Verdict
from .symptoms import Cause


@dataclass(frozen=True, eq=False)
class Judgement:
    """How far a place is off by itself.

    ``weights`` are its stored tensors. ``why`` finds the cause; it is asked only where the error exceeds the budget.
    ``when`` says in which way of running that is so, where it is not in all.
    """

    module: str
    operator: str | None
    error: float
    budget: float
    why: Callable[[], Cause]
    weights: tuple[str, ...] = ()
    when: str = ""

    def settled(self) -> "Judgement":
        """The same with its cause, if it needs one, found out by now: what that took, a layer's weights, is let go."""
        cause = self.why() if self.exceeds else Cause("")
        return replace(self, why=lambda: cause)

    @property
    def exceeds(self) -> bool:
        return self.error > self.budget


def findings_of(judgements: Sequence[Judgement], tensors: Sequence[TensorError]) -> list[Finding]:
    """A finding for each judgement that exceeds its budget, and for each faulty weight, however little it does.

    Args:
        judgements: in the order of execution.
        tensors: what an audit found.
    """
    blamed: dict[int, list[TensorError]] = {}
    alone = []
    for tensor in tensors:
        if tensor.fault is None:
            continue
        users = [i for i, judgement in enumerate(judgements) if tensor.name in judgement.weights]
        users = users or [i for i, judgement in enumerate(judgements) if tensor.module == judgement.module]
        if not users:  # a table that all layers share
            alone.append(Finding(tensor.module, None, tensor.error, 0.0, f"{tensor.name}: {tensor.fault}"))
            continue
        exceeding = [i for i in users if judgements[i].exceeds]
        for i in exceeding or [max(users, key=lambda i: judgements[i].error)]:
            blamed.setdefault(i, []).append(tensor)
    return alone + [
        _finding(judgement, blamed.get(i, []))
        for i, judgement in enumerate(judgements)
        if judgement.exceeds or i in blamed
    ]


def _finding(judgement: Judgement, faulty: Sequence[TensorError]) -> Finding:
    faults = [f"{tensor.name}: {tensor.fault}" for tensor in faulty]
    cause = judgement.why() if judgement.exceeds else None
    words = list(faults)
    verdict: Verdict = "broken"
    module = judgement.module
    if cause is not None and not (faults and cause.general):
        words.insert(0, f"with {judgement.when}: {cause.words}" if judgement.when else cause.words)
        verdict = "drifted" if cause.rounding and not faults else "broken"
        if cause.key is not None:
            module = f"{_layer(module)}.{cause.key}"
    return Finding(module, judgement.operator, judgement.error, judgement.budget, "; ".join(words), verdict)


def _layer(module: str) -> str:
    """The path of the layer that a module is in."""
    found = re.match(r"(?:.*\.)?layers\.\d+", module)
    assert found is not None, module
    return found[0]


def together(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """One finding for the same cause at the same place of several layers, which are named in it."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        place = re.sub(r"\blayers\.\d+", "layers", finding.module)
        groups.setdefault((place, re.sub(r"\blayer \d+", "layer", finding.cause)), []).append(finding)
    joined = []
    for members in groups.values():
        numbers = [int(found[1]) for member in members if (found := re.search(r"\blayers\.(\d+)", member.module))]
        others = [number for number in dict.fromkeys(numbers) if number != numbers[0]]
        more = f"; so in layer{'s' * (len(others) > 1)} {ranges(others)}" if others else ""
        joined.append(replace(members[0], cause=members[0].cause + more))
    return tuple(joined)


def ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 5 as "1 to 3, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
