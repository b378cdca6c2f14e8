"""Adapters that peft makes of a tiny base, and the weights that peft's own merge gives."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.tests import tiny
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

CLASSES = {
    "text-generation": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "feature-extraction": ("AutoModel", "FEATURE_EXTRACTION"),
    "text-classification": ("AutoModelForSequenceClassification", "SEQ_CLS"),
    "token-classification": ("AutoModelForTokenClassification", "TOKEN_CLS"),
    "question-answering": ("AutoModelForQuestionAnswering", "QUESTION_ANS"),
}
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def model(folder: Path, task: str = "text-generation", **settings: Any) -> Any:
    """Return transformers' float32 model of a checkpoint."""
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(7)  # a head that the checkpoint lacks is random
        return getattr(transformers, CLASSES[task][0]).from_pretrained(folder, dtype=torch.float32, **settings).eval()


def write(
    folder: Path, base: Path, config: Any, *, task: str = "text-generation", seed: int = 1, resized: int | None = None
) -> Path:
    """Write an adapter of a base, with random numbers in every tensor, as ``save_pretrained`` writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = model(base, task)
        if resized is not None:
            whole.resize_token_embeddings(resized)
    return save(adapt(whole, config, seed), folder)


def randomize(adapted: Any, seed: int) -> None:
    """Give every parameter that the adapter has a value that shows errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad or "modules_to_save" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                if "magnitude" in name or "ia3_l" in name:
                    parameter.mul_(1 + 0.2 * noise)
                else:
                    parameter.copy_(0.2 * noise)


def merged(
    base: Path, adapters: Sequence[tuple[Path, float]], task: str = "text-generation", **settings: Any
) -> dict[str, Tensor]:
    """Return the weights of peft's merge of one adapter after the other, each scaled by its weight."""
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = model(base, task, **settings)
        adapted = None
        names = []
        for index, (folder, weight) in enumerate(adapters):
            name = f"adapter{index}"
            names.append(name)
            if adapted is None:
                adapted = peft.PeftModel.from_pretrained(whole, folder, adapter_name=name)
            else:
                adapted.load_adapter(folder, adapter_name=name)
            for module in adapted.modules():
                if weight != 1 and hasattr(module, "set_scale") and name in getattr(module, "scaling", {}):
                    module.set_scale(name, weight)
        assert adapted is not None
        adapted.base_model.set_adapter(names)
        result = adapted.merge_and_unload()
    return {name: tensor.detach().clone() for name, tensor in result.state_dict().items()}


def edit(folder: Path, **values: Any) -> Path:
    """Change keys of an adapter's config."""
    path = folder / "adapter_config.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | values))
    return folder


def tensors(folder: Path) -> dict[str, Tensor]:
    """Return an adapter's tensors."""
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def rewrite(folder: Path, found: Mapping[str, Tensor]) -> Path:
    """Write other tensors."""
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "adapter_model.safetensors")
    return folder


def base(folder: Path, family: str = "qwen2", task: str = "text-generation", **changes: Any) -> Path:
    """Write a tiny base."""
    return tiny.write(folder, tiny.config(family, task, **changes))


def adapt(whole: Any, config: Any, seed: int = 1) -> Any:
    """Return peft's model of a new adapter with random numbers."""
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(whole, config).eval()
        randomize(adapted, seed)
        return adapted


def save(adapted: Any, folder: Path) -> Path:
    """Write an adapter as ``save_pretrained`` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(folder)
    return folder


def logits(whole: Any, ids: Tensor) -> Tensor:
    """Return a model's logits, the adapter that it has active."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        found: Tensor = whole(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return found


def with_adapter(whole: Any, folder: Path) -> Any:
    """Return peft's model with an adapter that is not merged."""
    peft = pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(whole, folder).eval()
