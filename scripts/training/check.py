"""Check that transformers computes the same logits and tokens from a written folder."""

from pathlib import Path

import torch
from intaglio.models.checkpoint import Checkpoint
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

TEXT = 'The song was released in 1994 by the band\'s own label; "Naïve Melody" (£3) did not – in part – sell. 🙂\n' * 6


def agreement(folder: Path) -> float:
    """Return the largest difference of transformers' logits and the native ones relative to their scale, in float32.

    Raises:
        AssertionError: transformers' tokenizer gives other ids, or does not give the text back.
    """
    checkpoint = Checkpoint(folder)
    native = checkpoint.load()
    kind = AutoModelForCausalLM if checkpoint.task == "text-generation" else AutoModelForSequenceClassification
    theirs = kind.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT)["input_ids"]
    assert tokenizer.decode(ids) == TEXT, tokenizer.decode(ids)
    ids = torch.tensor([ids])
    with torch.no_grad():
        ours, reference = native(ids).logits, theirs(ids).logits
    return float((ours - reference).abs().max() / reference.abs().max())
