"""Publishing an artifact on the Hugging Face hub, with a model card made from its manifest and its parity report."""

from .pushing import Pushed, PushedFile, preview, push

__all__ = ["Pushed", "PushedFile", "preview", "push"]
