"""Faults that exporters have been seen to make, or could: each with how to plant it and what a check must say of it."""

from .attention import ATTENTION, ROPE, WINDOWS
from .fault import Fault
from .heads import HEADS
from .layers import NORMS, STRUCTURE
from .weights import QUANTIZED, WEIGHTS

FAULTS: list[Fault] = [*WINDOWS, *ROPE, *ATTENTION, *NORMS, *STRUCTURE, *WEIGHTS, *QUANTIZED, *HEADS]
