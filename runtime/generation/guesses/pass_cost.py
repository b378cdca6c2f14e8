"""What a pass over several tokens of one sequence costs, and how many guesses are worth it.

The cost is in decode steps. It comes from a table and not from a clock, so that a seed gives the same passes every
time.
"""

from collections.abc import Mapping

from ...engine.session import Device, Session
from ...kernels import LONG_SEQUENCE

LONGEST_PASS = 16
"""The most tokens of a pass with guesses."""

LONGEST_FORCED = LONG_SEQUENCE - 1
"""The most tokens of a pass with forced tokens: longer ones round as a long prompt does."""

COSTS: Mapping[Device, Mapping[int, float]] = {
    "cpu": {1: 1.0, 2: 1.1, 4: 1.25, 8: 1.6, 16: 2.5},
    "cuda": {1: 1.0, 16: 1.2},
}
"""Decode steps that a pass over so many tokens costs, by device; between two of them on a straight line.

On the CPU for an int4 0.5B with intaglio's kernels on two cores with AVX512-VNNI, between 1.11, 1.18, 1.48 and 2.30
after 128 tokens, and 1.14, 1.30, 1.68 and 2.78 after 2,048: the arithmetic of a second row hides behind the reading of
weights. ``benchmarks/runtime.py`` measures them. Of CUDA nothing was measured.
"""

CHEAP_PASS: Mapping[Device, Mapping[str, int]] = {"cpu": {}, "cuda": {"int8": 5}}
"""The most tokens of a pass by device and precision of the weights, where a longer one costs much more; else any.

On CUDA weights of 8 bits are multiplied as they are stored with at most 5 tokens (ONNX Runtime 1.30, ``TryMatMul8Bits``
in matmul_8bits.cu); with more, all of them are dequantized first. Those of 4 bits take 16 (``kSmallMMax`` in
matmul_4bits.cu). This was read in the source and not measured.
"""


class PassCost:
    """The cost of passes in decode steps.

    Args:
        longest: the most tokens of a pass with guesses.
        guess: what the proposal of a guess costs.
    """

    def __init__(self, device: Device = "cpu", longest: int = LONGEST_PASS, guess: float = 0.0) -> None:
        self.longest = longest
        self.guess = guess
        table = COSTS[device]
        self._costs = [0.0, *(_between(table, tokens) for tokens in range(1, LONGEST_FORCED + 1))]

    def of(self, tokens: int, guesses: int = 0) -> float:
        """Return the cost of a pass over ``tokens`` tokens, from 1 to ``LONGEST_FORCED``, and of its guesses."""
        return self._costs[tokens] + guesses * self.guess

    def batch_is_cheaper(self, tokens: int, sequences: int) -> bool:
        """Return True where a sequence's share of a batch's steps costs less than a pass over ``tokens`` tokens."""
        return self._costs[min(sequences, LONGEST_FORCED)] / sequences <= self._costs[tokens] / tokens


def pass_cost(session: Session, guess: float = 0.0) -> PassCost:
    """Return the cost of a session's passes. ``guess`` as in ``PassCost``."""
    cheap = CHEAP_PASS[session.device]
    stored = {entry.precision for entry in session.manifest.tensors.values()}
    longest = min([LONGEST_PASS, *(cheap[precision] for precision in stored & cheap.keys())])
    return PassCost(session.device, longest, guess)


def _between(table: Mapping[int, float], tokens: int) -> float:
    """Return the cost of a pass by a table; beyond its end as along its last line."""
    known = list(table.items())
    index = next((index for index, (most, _) in enumerate(known) if index and tokens <= most), len(known) - 1)
    (low, first), (high, last) = known[index - 1 : index + 1]
    return first + (last - first) * (tokens - low) / (high - low)
