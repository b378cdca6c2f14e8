"""ONNX Runtime alone: numpy, tokenizers, and the contract of the graph; a batch is padded on the right."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

LONGEST_ANSWER = 15
Feeds = dict[str, NDArray[Any]]


class Artifact:
    def __init__(self, folder: Path, session: ort.InferenceSession | None = None) -> None:
        self.manifest = json.loads((folder / "intaglio.json").read_text(encoding="utf-8"))
        (graph,) = (name for name in self.manifest["files"] if name.endswith(".onnx"))
        self.session = session or ort.InferenceSession(folder / graph, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.session.get_outputs()]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        settings = folder / "generation_config.json"
        ends = json.loads(settings.read_text(encoding="utf-8")).get("eos_token_id") if settings.exists() else None
        self.ends = set(ends if isinstance(ends, list) else [ends])

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        return [np.asarray(value) for value in self.session.run(self.names, feeds)]

    def empty_cache(self, rows: int) -> Feeds:
        model = self.manifest["model"]
        shape = (rows, model["num_key_value_heads"], 0, model["head_dim"])
        kind = np.dtype(model["cache_dtype"])
        names = [value.name for value in self.session.get_inputs() if value.name.startswith("past_key_values.")]
        return {name: np.zeros(shape, kind) for name in names}

    def generate(self, texts: list[str], new: int) -> list[list[int]]:
        """Generate greedily for several texts at once; a mask row keeps the gap of its prompt's padding."""
        prompts = [self.tokenizer.encode(text).ids for text in texts]
        tokens, mask = padded(prompts, 0)
        cache, found = self.empty_cache(len(texts)), [list[int]() for _ in texts]
        last = np.array([len(prompt) - 1 for prompt in prompts])
        for _ in range(new):
            logits, *present = self.run({"input_ids": tokens, "attention_mask": mask, **cache})
            cache = dict(zip(cache, present, strict=True))
            chosen = logits[np.arange(len(texts)), last].argmax(-1)
            for row, token in zip(found, chosen.tolist(), strict=True):
                row.append(token)
            if all(self.ends.intersection(row) for row in found):
                break
            tokens, last = chosen[:, None], np.zeros_like(last)
            mask = np.concatenate([mask, np.ones((len(texts), 1), np.int64)], axis=1)
        return found

    def classify(self, texts: list[str]) -> list[dict[str, Any]]:
        prompts = [self.tokenizer.encode(text).ids for text in texts]
        tokens, mask = padded(prompts, self.manifest["model"]["pad_token_id"] or 0)
        scores = softmax(self.run({"input_ids": tokens, "attention_mask": mask})[0])
        labels = self.manifest["model"]["labels"]
        return [{"label": labels[row.argmax()], "score": float(row.max())} for row in scores]

    def one(self, encoding: Encoding) -> list[NDArray[Any]]:
        tokens, mask = padded([encoding.ids], 0)
        return self.run({"input_ids": tokens, "attention_mask": mask})

    def tag(self, text: str) -> list[int]:
        labels: list[int] = self.one(self.tokenizer.encode(text))[0][0].argmax(-1).tolist()
        return labels

    def answer(self, question: str, context: str) -> dict[str, Any]:
        """Return the most likely span of the context; the scores are those of the context's tokens."""
        encoding = self.tokenizer.encode(question, context)
        start, end = self.one(encoding)
        inside = [index for index, part in enumerate(encoding.sequence_ids) if part == 1]
        starts, ends = softmax(start[0, inside]), softmax(end[0, inside])
        spans = np.triu(starts[:, None] * ends[None, :])
        spans -= np.triu(spans, LONGEST_ANSWER)
        first, last = np.unravel_index(spans.argmax(), spans.shape)
        answer = context[encoding.offsets[inside[first]][0] : encoding.offsets[inside[last]][1]]
        return {"answer": answer.strip(), "score": float(spans[first, last])}

    def embed(self, text: str) -> dict[str, Any]:
        hidden = self.one(self.tokenizer.encode(text))[0]
        return {"shape": list(hidden.shape), "values": hidden[0, -1, :16].astype(float).tolist()}


def padded(prompts: list[list[int]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    tokens = np.full((len(prompts), max(map(len, prompts))), pad, np.int64)
    mask = np.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
        mask[row, : len(prompt)] = 1
    return tokens, mask


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    result: NDArray[Any] = powers / powers.sum(-1, keepdims=True)
    return result


def run(case: dict[str, Any], artifact: Artifact) -> dict[str, Any]:
    texts, batch = case["texts"], case["batch"]
    match case["task"]:
        case "text-generation":
            new = case["max_new_tokens"]
            return {
                "outputs": [artifact.generate([text], new)[0] for text in texts],
                "batch": batch and artifact.generate(batch, new),
            }
        case "text-classification":
            outputs = [artifact.classify([text])[0] for text in texts]
            return {"outputs": outputs, "batch": batch and artifact.classify(batch)}
        case "token-classification":
            return {"outputs": [artifact.tag(text) for text in texts], "batch": None}
        case "question-answering":
            return {"outputs": [artifact.answer(*text) for text in texts], "batch": None}
        case _:
            return {"outputs": [artifact.embed(text) for text in texts], "batch": None}


def main(case: str, result: str) -> None:
    found: dict[str, Any]
    try:
        fields = json.loads(Path(case).read_text(encoding="utf-8"))
        found = run(fields, Artifact(Path(fields["artifact"])))
    except Exception as error:  # ONNX Runtime raises its own kinds
        found = {"refused": str(error).strip().splitlines()[0]}
    found["runtime"] = f"onnxruntime {ort.__version__}"
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
