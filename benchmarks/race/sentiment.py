"""A sequence classifier on top of a language model: python -m race.sentiment CHECKPOINT OUT SENTENCES

The model's weights are linked, not copied; its head is a ridge regression from the last token's hidden state to the
labels of SENTENCES (``sentence<TAB>label`` lines). Needs torch and transformers.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file

from .sections.classification import read

COUNT, BATCH = 1024, 16
RIDGE = 0.1  # of the features' mean square
HEAD = "score.safetensors"
COPIED = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")


def main(checkpoint: str, out: str, sentences: str) -> None:
    source, folder = Path(checkpoint).absolute(), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    weight, pad = fit(source, *read(Path(sentences), COUNT))
    save_file({"score.weight": weight}, folder / HEAD)
    places = {"score.weight": HEAD}
    for file in sorted(source.glob("*.safetensors")):
        link = folder / f"body-{file.name}"
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        with safe_open(file, "np") as opened:
            places |= {name: link.name for name in opened.keys() if name != "lm_head.weight"}  # noqa: SIM118
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = [config["architectures"][0].replace("ForCausalLM", "ForSequenceClassification")]
    config |= {"id2label": {"0": "0", "1": "1"}, "label2id": {"0": 0, "1": 1}, "pad_token_id": pad}
    for name in COPIED:
        if (source / name).is_file():
            (folder / name).write_bytes((source / name).read_bytes())
    (folder / "config.json").write_text(json.dumps(config, indent=1))  # last: with it the folder is complete


def fit(source: Path, texts: list[str], labels: list[str]) -> tuple[np.ndarray, int]:
    """The head's weight, float32 [2, D], and the pad token's id.

    There is no bias in the families' heads: the regression is one without, to +1 and -1.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, padding_side="right")
    model = transformers.AutoModel.from_pretrained(source, dtype=torch.float32).eval()
    rows = []
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), BATCH):
        inputs = tokenizer([texts[i] for i in order[start : start + BATCH]], return_tensors="pt", padding=True)
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state
        rows.append(states[torch.arange(len(states)), inputs["attention_mask"].sum(1) - 1].double().numpy())
    features = np.concatenate(rows)
    targets = np.array([1.0 if labels[i] == "1" else -1.0 for i in order])
    energy = features.T @ features
    direction = np.linalg.solve(
        energy + RIDGE * np.trace(energy) / len(energy) * np.eye(len(energy)), features.T @ targets
    )
    weight = np.stack([-direction, direction]).astype(np.float32)
    return weight, int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
