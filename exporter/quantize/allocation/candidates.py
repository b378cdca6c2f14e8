"""The weights of a checkpoint that can be quantized, and the precisions that ``--keep`` gives them."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ....artifact import Task
from ....errors import UsageError
from ....models.heads import build, trunk
from ....models.loading.parameters import check_parameters, stored_name
from ....models.weight_source import WeightSource
from ..formats.blocks import BITS, LOW_STEP, BlockFormat
from ..options import Kept


@dataclass(frozen=True)
class Candidate:
    """A weight that may be quantized.

    Args:
        paths: its module path; a tied embedding has two.
        tensor: its name in the checkpoint.
        shape: [N, K].
        looked_up: true for an embedding, whose rows are looked up by token.
        symmetric: without zero points in 4 bits too.
        block_sizes: the block sizes that the device takes, best first, for each number of bits; None for any.
        widths: the numbers of bits that a mix may choose from.
    """

    paths: tuple[str, ...]
    tensor: str
    shape: tuple[int, int]
    looked_up: bool
    symmetric: bool = False
    block_sizes: Mapping[int, tuple[int, ...]] | None = None
    widths: tuple[int, ...] = BITS

    @property
    def per_token(self) -> bool:
        """True for the embedding and the LM head, which have a row for each token of the vocabulary."""
        return self.looked_up or self.paths == ("lm_head",)

    @property
    def mixture(self) -> str | None:
        """The mixture of experts that it belongs to, by its path in the checkpoint; None for other weights."""
        mixture, experts, _ = self.tensor.rpartition(".experts.")
        return mixture if experts else None

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def format(self, bits: int, block_size: int) -> BlockFormat:
        # An embedding has no zero points: their layouts in GatherBlockQuantized and MatMulNBits differ.
        return BlockFormat(bits, block_size, symmetric=bits == 8 or self.looked_up or self.symmetric)

    def sizes(self, bits: int, wanted: Sequence[int]) -> tuple[int, ...]:
        """Return those of the block sizes that the device takes with so many bits."""
        least = LOW_STEP if bits == 5 else 1
        known = None if self.block_sizes is None else self.block_sizes[bits]
        return tuple(size for size in wanted if size >= least and (known is None or size in known))

    def size_near(self, bits: int, wanted: int) -> int:
        """Return the block size, or the best that the device takes where it does not take that."""
        return wanted if self.sizes(bits, (wanted,)) or self.block_sizes is None else self.block_sizes[bits][0]


def candidates(checkpoint: WeightSource, task: Task) -> list[Candidate]:
    """Return the embedding, the LM head and every projection of the layers; other heads' projections stay in float.

    Raises:
        CheckpointError, UnsupportedError: the tensors are not those of the task's module.
    """
    with torch.device("meta"):
        module = build(checkpoint.config, task)
    check_parameters(checkpoint, task, module)
    inner = set(trunk(module).modules())
    tied = checkpoint.config.tie_word_embeddings
    found = []
    for path, part in module.named_modules():
        if isinstance(part, nn.Embedding):
            paths = (path, "lm_head") if tied and task == "text-generation" else (path,)
        elif isinstance(part, nn.Linear) and (part in inner or (path == "lm_head" and not tied)):
            paths = (path,)
        else:
            continue
        rows, columns = part.weight.shape
        tensor = stored_name(checkpoint, f"{path}.weight", task)
        found.append(Candidate(paths, tensor, (rows, columns), isinstance(part, nn.Embedding)))
    return found


def kept(found: list[Candidate], keep: Mapping[str, Kept]) -> dict[str, Kept]:
    """Resolve the patterns of ``--keep``; return the precision by tensor.

    Raises:
        UsageError: a pattern matches no weight's path.
    """
    answer: dict[str, Kept] = {}
    for pattern, precision in keep.items():
        hits = [c for c in found if any(fnmatch.fnmatchcase(path, pattern) for path in c.paths)]
        if not hits:
            some = ", ".join(dict.fromkeys(path for c in (found[0], *found[1:8], found[-1]) for path in c.paths))
            raise UsageError(
                f"--keep {pattern}: no weight that can be quantized has such a path; there are {some} and so on: "
                "give one of them, or a pattern with * such as '*.down_proj'"
            )
        answer |= {c.tensor: precision for c in hits}
    return answer
