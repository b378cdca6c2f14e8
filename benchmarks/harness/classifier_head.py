"""Fit a sequence classifier on a language model.

    python -m intaglio.benchmarks.harness.classifier_head CHECKPOINT OUT SENTENCES

The model's weights are linked, not copied; its head is a ridge regression from the last token's hidden state to the
labels of SENTENCES (``sentence<TAB>label`` lines). Needs torch and transformers.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from .sections.classification import read_sentences

COUNT, BATCH = 1024, 16
RIDGE = 0.1  # × the mean square of the features
HEAD = "score.safetensors"
COPIED = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")


def main(checkpoint: str, out: str, sentences: str) -> None:
    source, folder = Path(checkpoint).absolute(), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    weight, pad = fit(source, *read_sentences(Path(sentences), COUNT))
    save_file({"score.weight": weight}, folder / HEAD)
    files = {"score.weight": HEAD}
    for file in sorted(source.glob("*.safetensors")):
        link = folder / f"body-{file.name}"
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        with safe_open(file, "np") as opened:
            files |= {name: link.name for name in opened.keys() if name != "lm_head.weight"}  # noqa: SIM118
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = [config["architectures"][0].replace("ForCausalLM", "ForSequenceClassification")]
    config |= {"id2label": {"0": "0", "1": "1"}, "label2id": {"0": 0, "1": 1}, "pad_token_id": pad}
    for name in COPIED:
        if (source / name).is_file():
            (folder / name).write_bytes((source / name).read_bytes())
    (folder / "config.json").write_text(json.dumps(config, indent=1))  # written last: it marks the folder as complete


def fit(source: Path, texts: list[str], labels: list[str]) -> tuple[NDArray[np.float32], int]:
    """Fit the head; return its weight, float32 [2, D], and the pad token's id.

    The families' heads have no bias, and neither has the regression, to +1 and -1.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, padding_side="right")
    model = transformers.AutoModel.from_pretrained(source, dtype=torch.float32).eval()
    states_of_batches = []
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), BATCH):
        inputs = tokenizer([texts[i] for i in order[start : start + BATCH]], return_tensors="pt", padding=True)
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state
        states_of_batches.append(
            states[torch.arange(len(states)), inputs["attention_mask"].sum(1) - 1].double().numpy()
        )
    features = np.concatenate(states_of_batches)
    targets = np.array([1.0 if labels[i] == "1" else -1.0 for i in order])
    gram = features.T @ features
    direction = np.linalg.solve(gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)), features.T @ targets)
    weight = np.stack([-direction, direction]).astype(np.float32)
    return weight, int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
