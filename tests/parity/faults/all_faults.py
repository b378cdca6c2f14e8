"""Faults that exporters have been seen to make, or could: each with how to plant it and what a check must say of it."""

from .fault import Fault
from .faults_attention import ATTENTION, ROPE, WINDOWS
from .faults_heads import HEADS
from .faults_layers import NORMS, STRUCTURE
from .faults_weights import QUANTIZED, WEIGHTS

FAULTS: list[Fault] = [*WINDOWS, *ROPE, *ATTENTION, *NORMS, *STRUCTURE, *WEIGHTS, *QUANTIZED, *HEADS]
