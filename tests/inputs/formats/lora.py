"""Adapters that peft writes, over a base in float32; what they give is peft's own merge."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from intaglio.tests import tiny
from intaglio.tests.models.adapters import peft_maker
from torch import Tensor

from ..case import Case

Config = Callable[[Any], Any]
"""Returns a config of peft, which is given the module."""


def _make(config: Config) -> Callable[[Path, str], Path]:
    def make(folder: Path, family: str) -> Path:
        import peft

        base = tiny.write(folder / "base", tiny.config(family))
        peft_maker.write(folder / "adapter", base, config(peft))
        return base

    return make


def _adapters(base: Path) -> tuple[Path, ...]:
    return (base.parent / "adapter",)


def _weights(base: Path) -> Mapping[str, Tensor]:
    """Return the weights that peft's merge changes."""
    before = peft_maker.model(base).state_dict()
    after = peft_maker.merged(base, [(folder, 1.0) for folder in _adapters(base)])
    return {name: tensor for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def _case(method: str, variant: str, config: Config) -> Case:
    return Case(method, variant, "peft", _make(config), _weights, "peft", _adapters)


def _lora(**settings: Any) -> Config:
    defaults: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": list(peft_maker.PROJECTIONS)}
    return lambda peft: peft.LoraConfig(task_type="CAUSAL_LM", **(defaults | settings))


def _shared(kind: str, **settings: Any) -> Config:
    names = list(peft_maker.PROJECTIONS)
    return lambda peft: getattr(peft, kind)(r=4, alpha=6, target_modules=names, task_type="CAUSAL_LM", **settings)


def _ia3(peft: Any) -> Any:
    return peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    )


PATTERNS = {"use_rslora": True, "rank_pattern": {"q_proj": 9, "down_proj": 2}, "alpha_pattern": {"layers.1.*": 5}}
CASES = (
    _case("LoRA", "every projection", _lora()),
    _case("LoRA", "rank-stabilized, ranks and alphas by module", _lora(**PATTERNS)),
    _case("LoRA", "DoRA", _lora(use_dora=True)),
    _case("LoRA", "the embedding and the LM head too", _lora(target_modules=["q_proj", "embed_tokens", "lm_head"])),
    _case("LoRA", "whole modules (modules_to_save)", _lora(modules_to_save=["embed_tokens", "lm_head", "norm"])),
    _case("LoRA", "rows of new tokens (trainable_token_indices)", _lora(trainable_token_indices=[3, 287, 5])),
    _case("LoHa", "every projection", _shared("LoHaConfig")),
    _case("LoKr", "every projection", _shared("LoKrConfig")),
    _case("IA3", "keys, values and the last projection of the MLP", _ia3),
)
