"""From a checkpoint to an artifact folder: ``export``."""

from .export import export

__all__ = ["export"]
