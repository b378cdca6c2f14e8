"""A decoder run one layer at a time on the calibration text, so that the model need not fit into memory.

Memory holds one layer's weights in float32, the hidden states of all windows, and one stage's Hessian. A stage is the
set of projections that take the same input: q, k and v; o; gate and up; down. Attention, which is the dearest part of a
pass, is computed once: the inputs of o are kept until the layer is done.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import UnsupportedError
from ....models.family import FAMILIES
from ....models.layers import MLP
from ....models.loading.layerwise import Layerwise
from ....models.weight_source import WeightSource
from ..fixed_order import elementwise
from ..methods.finite import check_finite
from .products import autocast

ROWS = 4
"""Windows that go through a layer at once."""

ATTENTION_OUTPUT, DOWN = ("self_attn.o_proj",), ("mlp.down_proj",)
"""The stages whose output is added to the residual stream."""


@dataclass(frozen=True)
class Stage:
    """Projections of one layer that share their input.

    Args:
        names: inside the layer.
        norm: float32 [D], the weight of the norm through which the output goes into the residual stream; None where it
            is added as it is, or goes elsewhere.
    """

    names: tuple[str, ...]
    modules: tuple[nn.Linear, ...]
    norm: Tensor | None = None


@dataclass(frozen=True)
class Inputs:
    """What a stage reads in a few windows.

    Args:
        rows: float32 [T, K].
        residual: float32 [T, D], the residual stream to which the stage's output is added; None for a stage whose
            output goes elsewhere.
    """

    rows: Tensor
    residual: Tensor | None = None


class _Reached(Exception):  # noqa: N818 - not an error
    """Raised when the stage's input is known, to skip the rest of the layer."""


class LayerStream:
    """The layers of a checkpoint over windows of tokens, int64 [W, S].

    ``load`` and ``advance`` raise UnsupportedError for NaN and infinite values, with which nothing can be measured.
    """

    def __init__(self, checkpoint: WeightSource, windows: Tensor) -> None:
        """Embed the tokens.

        Raises:
            CheckpointError: a token is outside the checkpoint's vocabulary.
            UnsupportedError: a tensor outside the layers holds NaN or infinite values.
        """
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.windows = windows
        self._model = Layerwise(checkpoint)
        self.hidden = self._model.embed(windows)
        self._check()
        self._plans: dict[tuple[int, int], Any] = {}
        self._batch = 0

    def copy(self) -> "LayerStream":
        """Return a second stream in the same state, whose layers may be quantized apart from this one's."""
        other = copy.copy(self)
        other.hidden = self.hidden.clone()
        return other

    def _check(self) -> None:
        for name in self.checkpoint.tensors:
            if not name.startswith(f"{self.checkpoint.trunk_prefix}layers."):
                for _, rows in self.checkpoint.rows(name):
                    check_finite(rows, name)

    def load(self, index: int) -> nn.Module:
        """Read layer ``index`` in float32."""
        layer = self._layer(index)
        prefix = f"{self.checkpoint.trunk_prefix}layers.{index}."
        for name, tensor in layer.state_dict().items():
            check_finite(tensor, prefix + name)
        return layer

    def twin(self, layer: nn.Module, index: int) -> nn.Module:
        """Return layer ``index`` once more, with the tensors of ``layer``, where other ones may replace them."""
        return self._layer(index, dict(layer.state_dict()))

    def _layer(self, index: int, tensors: Mapping[str, Tensor] | None = None) -> nn.Module:
        layer = self._model.layer(index, tensors)
        for module in layer.modules():
            if isinstance(module, MLP):
                module.act = elementwise(module.act)
        return layer

    def stages(self, layer: nn.Module) -> list[Stage]:
        """Return the layer's stages in the order in which they run, but for those of experts (``experts.py``)."""
        names = {module: name for name, module in layer.named_modules()}
        seen: list[tuple[Tensor, list[nn.Linear]]] = []

        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(module, nn.Linear)
            for known, modules in seen:
                if known is inputs[0]:
                    modules.append(module)
                    return
            seen.append((inputs[0], [module]))

        linears = [module for module in names if isinstance(module, nn.Linear) and ".experts." not in names[module]]
        hooks = [module.register_forward_pre_hook(note) for module in linears]
        try:
            self._run(layer, self.hidden[:1, :2])
        finally:
            for hook in hooks:
                hook.remove()
        return [self._stage(layer, tuple(names[m] for m in modules), tuple(modules)) for _, modules in seen]

    def _stage(self, layer: nn.Module, names: tuple[str, ...], modules: tuple[nn.Linear, ...]) -> Stage:
        record = FAMILIES[self.config.family]
        norm = None
        if names == ATTENTION_OUTPUT:
            norm = record.norm_after_attention
        elif names == DOWN:
            norm = record.norm_after_mlp
        return Stage(names, modules, None if norm is None else layer.get_submodule(norm).get_parameter("weight"))

    def inputs(self, layer: nn.Module, stage: Stage, *, advance: bool = False) -> Iterator[Inputs]:
        """Yield the stage's inputs, a few windows at a time.

        Args:
            advance: run each batch to the layer's end, as ``advance`` does, instead of stopping at the stage.

        Raises:
            UnsupportedError: hidden states overflow.
        """
        taken: list[Tensor] = []
        residual: list[Tensor] = []

        def take(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            taken.append(inputs[0])
            if not advance:
                raise _Reached

        hooks = [stage.modules[0].register_forward_pre_hook(take)]
        if stage.names == DOWN:
            branch = layer.get_submodule(FAMILIES[self.config.family].norm_before_mlp or "mlp")
            hooks.append(branch.register_forward_pre_hook(lambda _, inputs: residual.append(inputs[0].flatten(0, -2))))
        kept: list[Tensor] = []
        try:
            for batch in self._batches():
                if stage.names == ATTENTION_OUTPUT:
                    residual.append(batch.flatten(0, -2))
                try:
                    output = self._run(layer, batch)
                except _Reached:
                    pass
                else:
                    self._replace(batch, output)
                if stage.names == ATTENTION_OUTPUT:
                    kept.append(taken[0])
                yield Inputs(taken.pop().flatten(0, -2).float(), residual.pop().float() if residual else None)
        finally:
            for hook in hooks:
                hook.remove()
        if stage.names == ATTENTION_OUTPUT:
            self._keep(layer, kept)

    def _keep(self, layer: nn.Module, kept: list[Tensor]) -> None:
        """Let the layer's attention be o of its kept inputs: nothing before o changes any more."""
        attention = layer.get_submodule("self_attn")
        projection = layer.get_submodule(ATTENTION_OUTPUT[0])
        attention.forward = lambda *_: (projection(kept[self._batch]), None)

    def _batches(self) -> Iterator[Tensor]:
        """Yield a few windows of hidden states at a time, which the caller may overwrite."""
        for number, batch in enumerate(torch.split(self.hidden, ROWS)):
            self._batch = number
            yield batch

    def _replace(self, batch: Tensor, output: Tensor) -> None:
        batch.copy_(output)
        if not torch.isfinite(output.sum()):
            raise self.overflow()

    def run_batches(self, layer: nn.Module) -> Iterator[int]:
        """Run the layer on the hidden states, a few windows at a time, and yield how many tokens that were."""
        for batch in self._batches():
            self._run(layer, batch)
            yield batch.shape[0] * batch.shape[1]

    def advance(self, layer: nn.Module, progress: Callable[[int], None] = lambda _: None) -> None:
        """Run the layer, as it is now, on the hidden states; call ``progress`` with the windows of each batch."""
        for batch in self._batches():
            self._replace(batch, self._run(layer, batch))
            progress(batch.shape[0])

    def overflow(self) -> UnsupportedError:
        """Return the error to raise when hidden states overflow float32."""
        return UnsupportedError(
            f"{self.checkpoint.folder}: its layers compute NaN or infinite values from the calibration text; "
            "see whether the checkpoint is damaged, or quantize it with --method rtn"
        )

    def normed(self) -> Iterator[Tensor]:
        """Yield the last layer's hidden states after the final norm, float32 [T, D], a few windows at a time."""
        for batch in torch.split(self.hidden, ROWS):
            yield self._model.norm(batch.flatten(0, 1))

    @torch.no_grad()
    def _run(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        with autocast():
            output, _ = layer(hidden, None, self.plan(hidden))
        assert isinstance(output, Tensor)
        return output

    def plan(self, hidden: Tensor) -> Any:
        """Return what the layers share (angles, masks) for hidden states of this shape."""
        rows, length, _ = hidden.shape
        if (rows, length) not in self._plans:
            self._plans[rows, length] = self._model.plan(rows, length)
        return self._plans[rows, length]
