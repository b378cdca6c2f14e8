"""A fault to find, and the faithful artifacts that faults are made in."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from intaglio.parity.report.result import Finding, Verdict
from intaglio.tests.models.variants import GLOBAL, LLAMA3, YARN

from ..artifacts import Base
from .artifact_editor import ArtifactEditor

ROUNDED = {"method": "rtn", "block_size": 32}
"""Only trained checkpoints are quantized: four bits change a random model too much."""

EXAONE = Base("exaone4")
EXAONE_STANDARD = Base("exaone4", target="standard")
EXAONE_LLAMA3 = Base("exaone4", changes=GLOBAL, rope=LLAMA3 | {"original_max_position_embeddings": 16})
EXAONE_INT4 = Base("exaone4", precision="int4", options=ROUNDED, trained="tiny-exaone4")
EXAONE_INT8 = Base("exaone4", precision="int8", options=ROUNDED, trained="tiny-exaone4")
EXAONE_FP16 = Base("exaone4", precision="fp16")
QWEN = Base("qwen2")
QWEN_SLIDING = Base("qwen2", changes={"use_sliding_window": True})
QWEN_STANDARD = Base("qwen2", target="standard", rope={"rope_type": "linear", "factor": 2.5})
QWEN_YARN = Base("qwen2", rope=YARN)
QWEN_INT4 = Base("qwen2", precision="int4", options=ROUNDED, trained="tiny-qwen2")
QWEN_INT4_STANDARD = Base("qwen2", precision="int4", target="standard", options=ROUNDED, trained="tiny-qwen2")
QWEN_CLASSES = Base("qwen2", "text-classification")
QWEN_CLASSES_STANDARD = Base("qwen2", "text-classification", target="standard")
QWEN_TAGS = Base("qwen2", "token-classification")
QWEN_ANSWERS = Base("qwen2", "question-answering")
QWEN_STATES = Base("qwen2", "feature-extraction")

PROMPT, DECODE, CHUNK, BATCH, LEFT = "prompt", "decode", "chunk", "batch", "left"
"""Ways of running an artifact, see ``outputs.py``: a whole prompt; one token at a time after a shorter prompt; several
tokens after it; a batch padded on the right; a batch padded on the left (target standard only)."""

ALL = frozenset({PROMPT, DECODE, CHUNK, BATCH, LEFT})
PER_ROW = frozenset({DECODE, CHUNK, BATCH, LEFT})
"""The ways of running with a cache or with several sequences."""


@dataclass(frozen=True)
class Fault:
    """A fault, made by ``edit`` in an artifact of ``base``.

    Args:
        modules: paths, one of which the finding must name: the first faulty module, or the module that uses a faulty
            mask or table.
        words: regular expressions that the cause must match, ignoring case.
        shows: the ways of running in which it makes a difference; in the others there must be none.
    """

    name: str
    base: Base
    edit: Callable[[ArtifactEditor], None]
    modules: tuple[str, ...]
    words: tuple[str, ...]
    verdict: Verdict = "broken"
    shows: frozenset[str] = ALL
    slow: bool = False

    def __str__(self) -> str:
        return self.name

    def found_by(self, finding: Finding) -> bool:
        """Check that a finding names the module and the cause."""
        return finding.module in self.modules and all(re.search(w, finding.cause, re.IGNORECASE) for w in self.words)


def inside(index: int, *parts: str) -> tuple[str, ...]:
    """Return paths such as ``model.layers.3.self_attn``."""
    return tuple(f"model.layers.{index}.{part}" for part in parts)


def projection(index: int, name: str) -> str:
    return f"model.layers.{index}.{'mlp' if name in ('gate', 'up', 'down') else 'self_attn'}.{name}_proj"
