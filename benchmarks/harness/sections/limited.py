"""The figures of ``speed``, of variants that may not use every vector instruction of the processor."""

from .speed import measure

__all__ = ["measure"]
