"""What a case must give, and what is told of it."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from intaglio.runtime import kernels

from . import attention, experts, gather, matmul
from .case import Array, Case, InvalidError, WrongError
from .mutations import mutated

Outputs = list[Array | None]
INSTRUCTIONS = ("AMX", "AVX512-VNNI", "AVX-VNNI", "AVX2", "NEON-I8MM", "NEON-DotProd", "NEON")
RIGHT, REFUSED = "right", "refused"
WRONG = "wrong"
ACCEPTED = "accepted what the specification excludes"
ALONE = "accepted what ONNX Runtime refuses"
SILENT = "refused without a message"


@dataclass(frozen=True)
class Operator:
    """How cases of an operator are drawn, and compared with numpy and with ONNX Runtime's own operator."""

    draw: Callable[[np.random.Generator], Case]
    check: Callable[[Case, Outputs], None]
    theirs: Callable[[Case], Case | None] = lambda case: None
    compare: Callable[[Case, Outputs, Outputs], None] = lambda case, found, theirs: None


OPERATORS = {
    "MatMulNBits": Operator(matmul.draw, matmul.check, matmul.with_float_scales, matmul.compare),
    "MergedMatMulNBits": Operator(matmul.draw_merged, matmul.check_merged),
    "GatherBlockQuantized": Operator(gather.draw, gather.check, gather.with_float_scales, gather.compare),
    "GroupQueryAttention": Operator(attention.draw, attention.check, attention.theirs, attention.compare),
    "GroupQueryAttentionInt8": Operator(attention.draw_int8, attention.check),
    "QMoE": Operator(experts.draw, experts.check, experts.theirs, experts.compare),
}
NAMES = tuple(OPERATORS)


def draw(mode: str, seed: int, number: int) -> Case:
    """Return one case of a run: the same for the same arguments."""
    random = np.random.default_rng((seed, number))
    case = OPERATORS[NAMES[number % len(NAMES)]].draw(random)
    return mutated(case, random) if mode == "mutations" else case


def choose_instructions(number: int) -> None:
    """Choose one of this processor's instruction sets."""
    there = []
    for name in INSTRUCTIONS:
        os.environ["INTAGLIO_KERNELS"] = name
        there += [name] if kernels.instructions() == name else []
    os.environ["INTAGLIO_KERNELS"] = there[number // len(NAMES) % len(there)]


def judge(mode: str, seed: int, number: int, entered: Callable[[str], None]) -> tuple[str, str]:
    """Run a case with intaglio's kernel, with numpy and with ONNX Runtime's; return the outcome and what it is.

    Args:
        entered: told whose kernel runs next, since it may not return.
    """
    case = draw(mode, seed, number)
    choose_instructions(number)
    operator = OPERATORS[case.operator]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entered("intaglio")
        try:
            found = case.run(folder, own=True)
        except Exception as error:
            told = str(error).strip()
            return (REFUSED if told else SILENT), told
        entered("numpy")
        with np.errstate(all="ignore"):
            try:
                operator.check(case, found)
                theirs = operator.theirs(case)
                if theirs is None:
                    return RIGHT, ""
                entered("ONNX Runtime")
                try:
                    wanted = theirs.run(folder, own=False)
                except Exception as error:
                    return ALONE, str(error).strip()
                operator.compare(case, found, wanted)
            except InvalidError as error:
                return ACCEPTED, str(error)
            except WrongError as error:
                return WRONG, str(error)
    return RIGHT, ""
