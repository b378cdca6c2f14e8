"""The same bits for every weight."""

from ..formats.scheme import Scheme, Schemes
from ..options import QuantizedPrecision, QuantizeOptions
from .candidates import Candidate, kept

BLOCK_SIZE = 32
FINE = tuple(f"{name}.weight" for name in ("embed_tokens", "lm_head", *(f"{part}_proj" for part in (*"qkvo", "down"))))
FINE_BLOCK_SIZE = 16
"""For int8: the block size of what gains most from smaller blocks. Activations have a scale for each block as well, and
the LM head's errors directly affect the choice of a token. Experts have one block size, as QMoE wants it."""


def uniform(found: list[Candidate], precision: QuantizedPrecision, options: QuantizeOptions, method: str) -> Schemes:
    """Return schemes of one precision; ``--keep`` names the exceptions.

    The embedding and the LM head are rounded: the Hessian of the embedding is known only where sensitivities are
    measured. What is kept in 8 bits among 4 is rounded too: its error is too small for GPTQ to matter.
    """
    special = kept(found, options.keep)
    schemes = {}
    for candidate in found:
        wanted = special.get(candidate.tensor, precision)
        if wanted != "float":
            fine = precision == wanted == "int8" and candidate.tensor.endswith(FINE) and candidate.mixture is None
            bits = 4 if wanted == "int4" else 8
            size = candidate.size_near(bits, options.block_size or (FINE_BLOCK_SIZE if fine else BLOCK_SIZE))
            format = candidate.format(bits, size)
            solves = method == "gptq" and not candidate.per_token and (format.bits == 4 or precision == "int8")
            schemes[candidate.tensor] = Scheme(format, "gptq" if solves else "rtn")
    return schemes
