"""Check on a machine with a GPU what runs on CUDA, against the CPU in fp32.

    python -m intaglio.scripts.check_cuda [CHECKPOINT ...]        after: pip install 'intaglio[gpu,export]'

CHECKPOINT is a folder or hub id of a causal language model; the tests' small checkpoints are taken without one. Each is
exported in every precision that CUDA runs. The parity check then compares the artifact on the GPU with the checkpoint
on the CPU, and the decoder's cache is read into, extended, stepped, rolled back, copied and grown at random: after each
operation its logits are compared with those of one pass over the same text.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from intaglio import QuantizeOptions, check, export
from intaglio.artifact import FloatPrecision, Manifest, Precision, Target, read_manifest
from intaglio.contract import ACTIVATIONS
from intaglio.errors import DependencyError, IntaglioError
from intaglio.machine import gpu_memory
from intaglio.runtime.decoding.decoder import Decoder, open_decoder
from intaglio.runtime.engine.onnxruntime import import_onnxruntime
from intaglio.runtime.engine.opening import open_session
from intaglio.runtime.engine.refusals import check_provider
from intaglio.runtime.engine.session import Session
from intaglio.runtime.graph.sliding import has_windows

CHECKPOINTS = Path(__file__).parent.parent / "tests" / "checkpoints"
SLOTS, OPERATIONS, LONGEST = 3, 150, 400

# How far logits may be from those of one pass, in their standard deviations: a pass of another length sums in another
# order, and half precision rounds each result.
TOLERANCE: dict[FloatPrecision, float] = {"fp32": 0.001, "fp16": 0.1, "bf16": 0.5}


class Case(NamedTuple):
    """How a checkpoint is exported."""

    precision: Precision
    target: Target
    activations: FloatPrecision = "fp32"

    def __str__(self) -> str:
        activations = f" with {self.activations} activations" if self.precision in ("int4", "int8") else ""
        return f"{self.precision}{activations}, {self.target}"


CASES = (
    Case("fp16", "ort"),
    Case("bf16", "ort"),
    Case("int4", "ort", "fp16"),
    Case("int4", "ort", "bf16"),
    Case("int8", "ort", "fp16"),
    Case("fp32", "standard"),
    Case("fp16", "standard"),
    Case("bf16", "standard"),
)


class Exercise:
    """Random operations on the slots of a decoder; ``worst`` is the largest deviation of their logits.

    Args:
        decoder: the decoder to try.
        single: a decoder of one slot, into which the same texts are read in one pass.
        vocabulary, longest: the number of token ids, and the most tokens of a slot.
    """

    def __init__(self, decoder: Decoder, single: Decoder, vocabulary: int, longest: int, seed: int = 0) -> None:
        self._decoder, self._single = decoder, single
        self._vocabulary, self._longest = vocabulary, longest
        self._random = np.random.default_rng(seed)
        self._texts: list[list[int]] = [[] for _ in range(decoder.slots)]
        self.worst = 0.0

    def run(self, operations: int) -> float:
        """Fill every slot and do so many operations; return the largest deviation."""
        for slot in range(self._decoder.slots):
            self._prefill(slot)
        kinds = (self._prefill, self._extend, self._extend, self._step, self._step, self._rollback, self._copy)
        for _ in range(operations):
            kinds[self._random.integers(len(kinds))](int(self._random.integers(self._decoder.slots)))
        return self.worst

    def _tokens(self, most: int) -> list[int]:
        drawn: list[int] = self._random.integers(0, self._vocabulary, int(self._random.integers(1, most))).tolist()
        return drawn

    def _prefill(self, slot: int) -> None:
        self._texts[slot] = self._tokens(self._longest // 2)
        self._compare(slot, self._decoder.prefill(slot, np.array(self._texts[slot])))

    def _extend(self, slot: int) -> None:
        read = self._tokens(20)
        if len(self._texts[slot]) + len(read) < self._longest:
            self._texts[slot] = self._texts[slot] + read
            self._compare(slot, self._decoder.extend(slot, np.array(read), len(read))[-1])

    def _step(self, slot: int) -> None:
        count = slot + 1
        if all(0 < len(text) < self._longest for text in self._texts[:count]):
            read = self._random.integers(0, self._vocabulary, count)
            logits = self._decoder.step(read).copy()
            for one in range(count):
                self._texts[one] = [*self._texts[one], int(read[one])]
                self._compare(one, logits[one])

    def _rollback(self, slot: int) -> None:
        left = self._decoder.rollback(slot, max(0, len(self._texts[slot]) - int(self._random.integers(1, 20))))
        self._texts[slot] = self._texts[slot][:left]

    def _copy(self, slot: int) -> None:
        target = (slot + 1) % self._decoder.slots
        self._decoder.copy(slot, target)
        self._texts[target] = list(self._texts[slot])

    def _compare(self, slot: int, found: np.ndarray) -> None:
        wanted = self._single.prefill(0, np.array(self._texts[slot]))
        deviation = float(np.abs(found - wanted).max() / wanted.std())
        self.worst = max(self.worst, deviation if np.isfinite(deviation) else np.inf)


def exercised(session: Session) -> tuple[bool, str]:
    """Try the cache of a session; return whether it is right, and a line that says so."""
    facts = session.manifest.model
    longest = min(LONGEST, facts.context_length)
    with (
        mock.patch("intaglio.runtime.decoding.cache.HEADROOM", 1),
        mock.patch("intaglio.runtime.decoding.in_place.MASK_STEP", 64),
    ):
        decoder, single = (open_decoder(session, slots, 1, longest) for slots in (SLOTS, 1))
        worst = Exercise(decoder, single, facts.vocab_size, longest).run(OPERATIONS)
    allowed = TOLERANCE[ACTIVATIONS[facts.cache_dtype]]
    windows = " with windows" if session.windowed else ""
    return worst <= allowed, f"cache{windows}: logits within {worst:.4f} of their deviation, {allowed} allowed"


def sessions(folder: Path, manifest: Manifest) -> Iterator[Session]:
    """Open an artifact on the GPU, and once more with windows where it has any."""
    yield open_session(folder, manifest, device="cuda")
    if manifest.target == "ort" and has_windows(manifest.model):
        with mock.patch("intaglio.runtime.engine.opening.needs_windows", return_value=True):
            yield open_session(folder, manifest, device="cuda", windowed=True)


def checked(source: str, case: Case, folder: Path) -> Iterator[tuple[bool, str]]:
    """Export a checkpoint and check it on the GPU; yield whether each part is right, and a line that says so."""
    options = QuantizeOptions(activations=case.activations) if case.precision in ("int4", "int8") else None
    export(source, folder, precision=case.precision, target=case.target, options=options)
    report = check(folder, source, device="cuda")
    yield report.verdict != "broken", ": ".join(("parity", report.verdict, *report.reasons[:1]))
    for session in sessions(folder, read_manifest(folder)):
        yield exercised(session)


def main(sources: Sequence[str]) -> int:
    """Check every checkpoint; return the exit status: 0, 1 where something is wrong, 2 without CUDA."""
    try:
        check_provider(import_onnxruntime(), "cuda")
    except DependencyError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"GPU: {gpu_memory() or 'the driver does not say'}", flush=True)
    right = True
    for source in sources or [str(CHECKPOINTS / name) for name in ("tiny-qwen2", "tiny-exaone4")]:
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    for good, line in checked(source, case, Path(folder) / "out"):
                        right = right and good
                        print(f"{'ok   ' if good else 'WRONG'} {source}, {case}: {line}", flush=True)
                except IntaglioError as error:
                    right = False
                    print(f"WRONG {source}, {case}: {error}", flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
