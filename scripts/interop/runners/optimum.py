"""optimum: its classes for ONNX Runtime, with transformers' tokenizers and pipelines.

A batch of text generation is padded on the left, as ``generate`` needs it, and every other batch on the right.
"""

import json
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import intaglio.interop.optimum  # noqa: F401  # the key-value heads and head_dim of EXAONE 4.0
import onnxruntime as ort
from transformers import AutoTokenizer

models: Any = import_module("optimum.onnxruntime")  # in its own environment
CLASSES = {
    "text-generation": models.ORTModelForCausalLM,
    "text-classification": models.ORTModelForSequenceClassification,
    "token-classification": models.ORTModelForTokenClassification,
    "question-answering": models.ORTModelForQuestionAnswering,
    "feature-extraction": models.ORTModelForFeatureExtraction,
}


class Artifact:
    def __init__(self, folder: str, task: str, new: int) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.model: Any = CLASSES[task].from_pretrained(folder, session_options=options)
        side = "left" if task == "text-generation" else "right"
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side=side)
        self.task, self.new = task, new

    def run(self, texts: list[Any]) -> list[Any]:
        """Return the outputs of several texts, run as one batch."""
        match self.task:
            case "text-generation":
                inputs = self.tokenizer(texts, return_tensors="pt", padding=len(texts) > 1)
                found = self.model.generate(**inputs, max_new_tokens=self.new, do_sample=False)
                rows: list[Any] = found[:, inputs["input_ids"].shape[1] :].tolist()
                return rows
            case "text-classification":
                return list(self.pipeline()(texts, batch_size=len(texts)))
            case "question-answering":
                (found,) = ([self.pipeline()(question=question, context=context)] for question, context in texts)
                return [{"answer": one["answer"].strip(), "score": one["score"]} for one in found]
            case "token-classification":
                logits = self.model(**self.tokenizer(texts, return_tensors="pt")).logits
                return list(logits.argmax(-1).tolist())
            case _:
                hidden = self.model(**self.tokenizer(texts, return_tensors="pt")).last_hidden_state
                return [{"shape": list(hidden.shape), "values": hidden[0, -1, :16].double().tolist()}]

    def pipeline(self) -> Any:
        return models.pipeline(self.task, model=self.model, tokenizer=self.tokenizer)


def run(case: dict[str, Any]) -> dict[str, Any]:
    artifact = Artifact(case["artifact"], case["task"], case["max_new_tokens"])
    found: dict[str, Any] = {"outputs": [artifact.run([text])[0] for text in case["texts"]], "batch": None}
    try:
        found["batch"] = case["batch"] and artifact.run(case["batch"])
    except Exception as error:
        found["batch_refused"] = first_line(error)
    return found


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def main(case: str, result: str) -> None:
    found: dict[str, Any]
    try:
        found = run(json.loads(Path(case).read_text(encoding="utf-8")))
    except Exception as error:  # ONNX Runtime raises its own kinds
        found = {"refused": first_line(error)}
    found["runtime"] = f"optimum-onnx {version('optimum-onnx')} (transformers {version('transformers')})"
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
