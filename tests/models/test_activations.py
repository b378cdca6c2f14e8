"""``hidden_act`` may name every function of transformers' table that has no weights of its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from intaglio.models.activations import ACTIVATIONS
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from transformers.activations import ACT2CLS, ACT2FN

from .drive import TOLERANCE, difference, open_pair, token_ids
from .variants import BY_NAME

WITH_WEIGHTS = {"prelu", "xielu"}


def test_the_table_is_complete() -> None:
    assert set(ACT2CLS) - WITH_WEIGHTS <= set(ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) & set(ACT2CLS)))
def test_equals_transformers(name: str) -> None:
    x = torch.cat((torch.linspace(-30, 30, 4001), torch.tensor([0.0, -0.0, 1e-7, -1e-7])))
    torch.testing.assert_close(ACTIVATIONS[name](x), ACT2FN[name](x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "act"), [("qwen2-plain", "gelu"), ("exaone4-plain", "relu2")])
def test_the_model_equals_transformers(tmp_path: Path, name: str, act: str) -> None:
    both, ids = open_pair(tmp_path, BY_NAME[name], "text-generation", hidden_act=act), token_ids(2, 20)
    with torch.no_grad():
        ours, theirs = both.ours(ids).logits, both.theirs(ids).logits
    assert difference(ours, theirs) <= TOLERANCE


def test_without_biases(tmp_path: Path) -> None:
    """transformers gives zeros to biases that the file lacks."""
    values = tiny.config("qwen2", attention_bias=False)
    tensors = {name: tensor for name, tensor in tiny.weights(values).items() if not name.endswith(".bias")}
    folder, ids = tiny.write(tmp_path, values, tensors=tensors), token_ids(2, 20)
    kind: Any = transformers.AutoModelForCausalLM
    theirs = kind.from_pretrained(folder, dtype=torch.float32).eval()
    assert not theirs.model.layers[0].self_attn.q_proj.bias.any()
    with torch.no_grad():
        assert difference(Checkpoint(folder).load()(ids).logits, theirs(ids).logits) <= TOLERANCE
