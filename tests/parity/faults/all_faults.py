"""Faults that exporters have made or could make, each with the edit that makes it and the finding that it must give."""

from .attention import ATTENTION, ROPE, WINDOWS
from .fault import Fault
from .heads import HEADS
from .layers import NORMS, STRUCTURE
from .weights import QUANTIZED, WEIGHTS

FAULTS: list[Fault] = [*WINDOWS, *ROPE, *ATTENTION, *NORMS, *STRUCTURE, *WEIGHTS, *QUANTIZED, *HEADS]
