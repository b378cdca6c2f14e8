"""A model run layer by layer is the model that is loaded whole."""

from pathlib import Path

import pytest
import torch
from intaglio.errors import CheckpointError
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.loading.layerwise import Layerwise
from intaglio.tests import tiny


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
@pytest.mark.parametrize("tied", [True, False])
@torch.inference_mode()
def test_it_is_the_same_model(tmp_path: Path, family: str, tied: bool) -> None:
    folder = tiny.write(tmp_path / "source", tiny.config(family, tie_word_embeddings=tied), dtype=torch.bfloat16)
    checkpoint = Checkpoint(folder)
    tokens = torch.randint(3, 280, (2, 20), generator=torch.Generator().manual_seed(0))
    whole = checkpoint.load()(tokens, output_hidden_states=True)
    stream = Layerwise(checkpoint)
    hidden = stream.embed(tokens)
    torch.testing.assert_close(hidden, whole.hidden_states[0], rtol=0, atol=0)
    plan = stream.plan(2, 20)
    for index in range(checkpoint.config.num_hidden_layers):
        hidden, _ = stream.layer(index)(hidden, None, plan)
    torch.testing.assert_close(stream.norm(hidden), whole.hidden_states[-1])
    torch.testing.assert_close(stream.logits(stream.norm(hidden)), whole.logits)


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "question-answering"])
def test_heads(tmp_path: Path, task: str) -> None:
    checkpoint = Checkpoint(tiny.write(tmp_path / "source", tiny.config("qwen2", task)))
    head = Layerwise(checkpoint).head(task)  # type: ignore[arg-type]
    name = "qa_outputs" if task == "question-answering" else "score"
    for leaf, parameter in checkpoint.load().get_submodule(name).state_dict().items():
        torch.testing.assert_close(head.state_dict()[leaf], parameter)


def test_a_token_of_another_model(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "source", tiny.config("qwen2"))
    with pytest.raises(CheckpointError) as caught:
        Layerwise(Checkpoint(folder)).embed(torch.tensor([[5, 288]]))
    assert str(caught.value) == (
        f"{folder}: tokenizer.json makes token 288 of the text, and config.json has vocab_size 288; "
        "the two belong to different models: fetch the checkpoint again"
    )
