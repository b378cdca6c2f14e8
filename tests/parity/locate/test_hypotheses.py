"""Causes are told by what they do: each mistake is made in the native definition, and then has to be named."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.models import ops
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.config import ModelConfig
from intaglio.models.family import FAMILIES
from intaglio.models.layerwise import Layerwise
from intaglio.models.rope import RotaryEmbedding
from intaglio.parity.locate.batches import Batch, Record, Step, Trail, relative_error
from intaglio.parity.locate.hypotheses import explain
from intaglio.parity.locate.places import places_of
from intaglio.parity.locate.symptoms import Cause, Symptom, matched, plausible
from intaglio.tests import tiny
from intaglio.tests.models.variants import GLOBAL, LLAMA3, LONGROPE, YARN
from torch import Tensor, nn

BUDGET = 2e-5
SIZE = 24


@dataclass(frozen=True)
class Ward:
    """A tiny checkpoint's layer, sound, with what it computes from a batch."""

    stream: Layerwise
    index: int
    layer: nn.Module
    hidden: Tensor
    step: Step

    @property
    def config(self) -> ModelConfig:
        return self.stream.config

    def broken(self, config: ModelConfig | None = None, mend: Callable[[nn.Module], None] | None = None) -> Step:
        """What a layer of another config, or one that has been changed, computes from the same, cache included."""
        config, batch = config or self.config, self.step.batch
        layer = FAMILIES[config.family].trunk.layer(config, self.index)
        layer.load_state_dict(self.layer.state_dict())
        layer.requires_grad_(False)
        if mend is not None:
            mend(layer)
        plan = ops.plan(batch.ids, batch.mask, batch.past, RotaryEmbedding(config.rope, config.head_dim))
        with Record(layer, places_of(FAMILIES[config.family])) as record:
            layer(self.hidden, self.step.past, plan)
        return replace(self.step, plan=plan, values=record.values)

    def symptom(self, key: str, found: Tensor) -> Symptom:
        place = next(place for place in places_of(FAMILIES[self.config.family]) if place.key == key)
        wanted = self.step.values[key]
        error = relative_error(wanted, found)
        prefix = self.stream.checkpoint.trunk_prefix
        return Symptom(
            self.config,
            self.index,
            place,
            self.layer.get_submodule(place.module),
            self.step,
            wanted,
            found,
            error,
            BUDGET,
            {},
            lambda other: self.stream.checkpoint.tensor(f"{prefix}layers.{other}.{key}.weight"),
            lambda other: f"model.layers.{other}.{key}",
        )

    def cause(self, key: str, found: Tensor) -> Cause:
        return explain(self.symptom(key, found))


def ward(
    folder: Path,
    family: str,
    *,
    index: int = 0,
    past: int = 0,
    rope: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Ward:
    source = tiny.write(folder / "source", tiny.config(family, rope=rope, **changes))
    stream = Layerwise(Checkpoint(source))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 288, (1, SIZE), generator=generator)
    batch = Batch("b", "a batch", ids[:, :past], ids[:, past:], torch.ones_like(ids))
    hidden = torch.randn(1, SIZE, 64, generator=generator)
    rotary = RotaryEmbedding(stream.config.rope, stream.config.head_dim)
    layer = stream.layer(index)
    step = Trail(batch, rotary, hidden[:, :past], hidden[:, past:]).step(layer, places_of(FAMILIES[family]))
    return Ward(stream, index, layer, hidden[:, past:], step)


def windows(config: ModelConfig, index: int, window: int | None) -> ModelConfig:
    listed = [*config.layer_windows]
    listed[index] = window
    return replace(config, layer_windows=tuple(listed))


def rotary(config: ModelConfig, index: int, rotates: bool) -> ModelConfig:
    listed = [*config.layer_rotary]
    listed[index] = rotates
    return replace(config, layer_rotary=tuple(listed))


@pytest.mark.parametrize("past", [0, 20])
@pytest.mark.parametrize(("size", "words"), [(7, "7 tokens"), (5, "5 tokens"), (None, "everything"), (12, "12 tokens")])
def test_windows(tmp_path: Path, size: int | None, words: str, past: int) -> None:
    sick = ward(tmp_path, "exaone4", index=1, past=past)
    found = sick.broken(windows(sick.config, 1, size)).values["self_attn"]
    assert sick.cause("self_attn", found).words == f"attends to {words}, config.json's sliding_window is 6"


def test_a_window_where_there_is_none(tmp_path: Path) -> None:
    sick = ward(tmp_path, "exaone4", index=3)
    found = sick.broken(windows(sick.config, 3, 6)).values["self_attn"]
    assert sick.cause("self_attn", found).words == "attends to 6 tokens, layer 3 is global and has no window"


def test_rope_where_there_is_none(tmp_path: Path) -> None:
    sick = ward(tmp_path, "exaone4", index=3)
    found = sick.broken(rotary(sick.config, 3, True)).values["self_attn"]
    words = "RoPE rotates this layer; layer 3 is global and EXAONE 4.0 has none there"
    assert sick.cause("self_attn", found).words == words


def test_no_rope(tmp_path: Path) -> None:
    sick = ward(tmp_path, "exaone4", index=0)
    found = sick.broken(rotary(sick.config, 0, False)).values["self_attn"]
    assert sick.cause("self_attn", found).words == "RoPE is missing: queries and keys are not rotated"


@pytest.mark.parametrize("past", [0, 20])
@pytest.mark.parametrize(
    ("theta", "words"),
    [
        (1e6, "RoPE's theta is 1,000,000, config.json's rope_theta is 10,000"),
        (500_000.0, "RoPE's theta is 500,000, config.json's rope_theta is 10,000"),
        (31_234.0, "RoPE's theta is about 31,234, config.json's rope_theta is 10,000"),
    ],
)
def test_thetas(tmp_path: Path, theta: float, words: str, past: int) -> None:
    sick = ward(tmp_path, "qwen2", past=past)
    found = sick.broken(replace(sick.config, rope=replace(sick.config.rope, theta=theta))).values["self_attn"]
    assert sick.cause("self_attn", found).words == words


@pytest.mark.parametrize("rope", [LLAMA3 | {"original_max_position_embeddings": 16}, YARN], ids=["llama3", "yarn"])
def test_a_scaling_left_out(tmp_path: Path, rope: Mapping[str, Any]) -> None:
    sick = ward(tmp_path, "exaone4", rope=rope, **GLOBAL)
    found = sick.broken(replace(sick.config, rope=replace(sick.config.rope, type="default"))).values["self_attn"]
    words = f"RoPE is of the default type: config.json's scaling of the type '{rope['rope_type']}' is left out"
    assert sick.cause("self_attn", found).words == words


def test_the_factors_of_longrope(tmp_path: Path) -> None:
    sick = ward(tmp_path, "qwen2", rope=LONGROPE, max_position_embeddings=64)
    rope = sick.config.rope
    found = sick.broken(replace(sick.config, rope=replace(rope, long_factor=rope.short_factor))).values["self_attn"]
    words = "RoPE takes short_factor whatever the length; it changes beyond 16"
    assert sick.cause("self_attn", found).words == words


def test_the_factor_on_cos_and_sin(tmp_path: Path) -> None:
    sick = ward(tmp_path, "qwen2", rope=YARN)
    found = sick.broken(replace(sick.config, rope=replace(sick.config.rope, attention_factor=1.0))).values["self_attn"]
    assert sick.cause("self_attn", found).words == "RoPE's attention_factor of 1.139 is left out"


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.25, "the scale of the scores is 1/head_dim, expected 1/sqrt(head_dim)"),
        (4.0, "the scale of the scores is 1 (they are not scaled), expected 1/sqrt(head_dim)"),
        (1.37, "the scale of the scores is 0.3425, expected 1/sqrt(head_dim) = 0.25"),
    ],
)
def test_scales(tmp_path: Path, factor: float, words: str) -> None:
    def mend(layer: nn.Module) -> None:
        norm = layer.get_submodule("self_attn.q_norm")
        norm.weight.mul_(factor)

    sick = ward(tmp_path, "exaone4", index=1)
    assert sick.cause("self_attn", sick.broken(mend=mend).values["self_attn"]).words == words


def test_heads_in_another_order(tmp_path: Path) -> None:
    sick = ward(tmp_path, "qwen2")
    heads = sick.step.values["self_attn"].view(1, SIZE, 4, 16)
    found = heads[:, :, [2, 0, 1, 3]].flatten(2)
    assert sick.cause("self_attn", found).words == "its heads are in another order (2, 0, 1, 3)"


@pytest.mark.parametrize("key", ["self_attn.q_norm", "post_attention_layernorm"])
@pytest.mark.parametrize("eps", [1e-3, 1e-6, 3.7e-4])
def test_epsilons(tmp_path: Path, key: str, eps: float) -> None:
    sick = ward(tmp_path, "exaone4", index=2)

    def mend(layer: nn.Module) -> None:
        layer.get_submodule(key).eps = eps  # type: ignore[assignment]

    if eps < 1e-5:  # shows only where the numbers are small
        sick.layer.get_submodule("self_attn.q_proj").weight.mul_(0.01)
        sick.layer.get_submodule("self_attn.o_proj").weight.mul_(0.01)
        sick = replace(sick, step=sick.broken())
    cause = sick.cause(key, sick.broken(mend=mend).values[key])
    assert cause.words == f"its epsilon is {eps:g}, config.json's rms_norm_eps is 1e-05"
    assert cause.rounding


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, w: x, "the norm is skipped: what goes in comes out"),
        (lambda x, w: _normed(x), "the norm's weight is left out"),
        (lambda x, w: _normed(x) * (1 + w), "the norm multiplies by 1 + weight"),
        (lambda x, w: _normed(x - x.mean(-1, keepdim=True)) * w, "the mean is subtracted, as in LayerNorm"),
        (lambda x, w: torch.zeros_like(x), "its output is all zeros"),
        (lambda x, w: -_normed(x) * w, "its sign is flipped"),
        (lambda x, w: 1.5 * _normed(x) * w, "its output is 1.5 times what it should be"),
    ],
)
def test_norms(tmp_path: Path, change: Callable[[Tensor, Tensor], Tensor], words: str) -> None:
    sick = ward(tmp_path, "qwen2")
    weight = sick.layer.get_submodule("input_layernorm").weight
    assert sick.cause("input_layernorm", change(sick.hidden, weight)).words == words


def _normed(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def test_a_norm_over_all_heads(tmp_path: Path) -> None:
    sick = ward(tmp_path, "exaone4")
    x, weight = sick.step.values["self_attn.q_proj"], sick.layer.get_submodule("self_attn.q_norm").weight
    found = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight.repeat(4)
    words = "the norm is taken over all heads together, not over each"
    assert sick.cause("self_attn.q_norm", found).words == words


def test_the_weight_of_another_layer(tmp_path: Path) -> None:
    sick = ward(tmp_path, "qwen2", index=1)
    other = sick.stream.layer(3)
    for key in ("post_attention_layernorm", "mlp.up_proj"):
        takes = next(place.takes[0] for place in places_of(FAMILIES["qwen2"]) if place.key == key)
        found = other.get_submodule(key)(sick.step.values[takes])
        assert sick.cause(key, found).words == f"its weight is that of model.layers.3.{key}"


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("self_attn.q_proj", lambda x, w, b: x @ w.t(), "its bias is missing or zero"),
        ("self_attn.v_proj", lambda x, w, b: x @ w.t() - b, "its bias is subtracted"),
        ("self_attn.o_proj", lambda x, w, b: x @ w, "its weight is transposed"),
        ("mlp.gate_proj", lambda x, w, b: x @ w.t() * 0, "its weight is zero"),
        ("mlp.down_proj", lambda x, w, b: x @ -w.t(), "its weight is negated"),
        (
            "self_attn.q_proj",
            lambda x, w, b: (x @ w.t() + b).view(1, SIZE, 4, 16)[:, :, [1, 0, 3, 2]].flatten(2),
            "its heads are in another order (1, 0, 3, 2)",
        ),
    ],
)
def test_projections(tmp_path: Path, key: str, change: Callable[..., Tensor], words: str) -> None:
    sick = ward(tmp_path, "qwen2")
    module = sick.layer.get_submodule(key)
    takes = next(place.takes[0] for place in places_of(FAMILIES["qwen2"]) if place.key == key)
    assert sick.cause(key, change(sick.step.values[takes], module.weight, module.bias)).words == words


def test_a_rounded_weight_is_rounding(tmp_path: Path) -> None:
    sick = ward(tmp_path, "qwen2")
    weight = sick.layer.get_submodule("mlp.down_proj").weight
    cause = sick.cause("mlp.down_proj", sick.step.values["mlp"] @ weight.half().float().t())
    assert (cause.words, cause.rounding) == ("its weight is rounded to float16", True)


def test_a_projection_of_something_else(tmp_path: Path) -> None:
    sick = ward(tmp_path, "qwen2")
    found = sick.layer.get_submodule("mlp.gate_proj")(sick.step.values["input_layernorm"])
    words = "takes input_layernorm's output in place of post_attention_layernorm's output"
    assert sick.cause("mlp.gate_proj", found).words == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g, u: nn.functional.gelu(g) * u, "the activation is GELU, not SiLU"),
        (lambda g, u: nn.functional.silu(u) * g, "gate and up are exchanged"),
        (lambda g, u: g * u, "the activation is left out"),
        (lambda g, u: u, "the gate is left out"),
    ],
)
def test_activations(tmp_path: Path, change: Callable[[Tensor, Tensor], Tensor], words: str) -> None:
    sick = ward(tmp_path, "exaone4")
    found = change(sick.step.values["mlp.gate_proj"], sick.step.values["mlp.up_proj"])
    assert sick.cause("mlp", found).words == words


def test_residuals(tmp_path: Path) -> None:
    sick = ward(tmp_path, "qwen2")
    branch = sick.step.values["mlp.down_proj"]
    assert sick.cause("out", branch).words == "the residual is left out"
    assert sick.cause("out", sick.step.values["middle"]).words == "the branch is left out"
    words = "the residual is the layer's input in place of the sum behind attention"
    assert sick.cause("out", sick.hidden + branch).words == words


def test_where_nothing_explains_it(tmp_path: Path) -> None:
    sick = ward(tmp_path, "qwen2")
    wanted = sick.step.values["self_attn"]
    noise = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(3))
    noise *= wanted.norm() / noise.norm()
    cause = sick.cause("self_attn", wanted + 0.1 * noise)
    assert cause.words == "the attention operator differs by 0.1 of its size: none of the usual mistakes explains it"
    assert cause.general
    assert not cause.rounding
    cause = sick.cause("self_attn", wanted + 2 * BUDGET * noise)
    assert cause.words == "the attention operator differs by 4e-05 of its size: more than rounding makes"
    assert cause.rounding
    late = wanted.clone()
    late[:, 17:] += noise[:, 17:]
    assert sick.cause("self_attn", late).words.endswith("it is right up to position 16")
    assert sick.cause("self_attn", wanted[:, 1:]).words.startswith("its output has shape (1, 23, 64), expected")
    cause = sick.cause("mlp.up_proj", torch.full_like(sick.step.values["mlp.up_proj"], torch.inf))
    assert cause.words.startswith("its output has NaN or infinite values; the source's largest is ")


def test_what_explains() -> None:
    assert plausible(1e-6, error=0.5, budget=BUDGET)
    assert not plausible(1e-3, error=0.5, budget=BUDGET)  # better, and still wrong
    assert not plausible(3e-5, error=5e-5, budget=BUDGET)  # no better


def test_matched() -> None:
    parts = torch.randn(5, 3, 4)
    assert matched(parts, parts[:, [2, 0, 1]]) == [2, 0, 1]
    assert matched(parts, parts) is None
    assert matched(parts, parts[:, [0, 0, 1]]) is None
