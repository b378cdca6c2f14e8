"""Sentences/s of a sequence classifier, from text to labels, and the labels.

``settings``: {"texts": file of ``sentence<TAB>label`` lines, "count": n, "batch": n, "sort": True sorts the
texts by length for transformers}. intaglio groups texts of similar lengths by itself.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..job import Job

WARM_UP = 32
Classifier = Callable[[Sequence[str]], list[str]]


def measure(job: Job) -> dict[str, Any]:
    """Return ``sentences`` per second, and the ``labels`` in the order of the file."""
    texts = read_sentences(Path(job.settings["texts"]), job.settings["count"])[0]
    classify, version = (_own if job.tool == "intaglio" else _transformers)(job)
    classify(texts[:WARM_UP])
    begin = time.perf_counter()
    labels = classify(texts)
    return {"sentences": len(texts) / (time.perf_counter() - begin), "labels": labels, "version": version}


def read_sentences(path: Path, count: int | None = None) -> tuple[list[str], list[str]]:
    """Return the first ``count`` sentences, or all, and their labels."""
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    texts, labels = zip(*(line.rsplit("\t", 1) for line in lines), strict=True)
    return list(texts), list(labels)


def _own(job: Job) -> tuple[Classifier, str]:
    from intaglio.runtime import load

    from ..engines.intaglio_runtime import Engine

    model: Any = load(job.artifact, threads=job.threads)
    return lambda texts: [one.label for one in model(texts, batch_size=job.settings["batch"])], Engine.version


def _transformers(job: Job) -> tuple[Classifier, str]:
    import torch
    import transformers

    from ..engines.transformers_eager import Engine

    torch.set_num_threads(job.threads)
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(job.artifact, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.artifact, padding_side="right")

    def classify(texts: Sequence[str]) -> list[str]:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i])) if job.settings["sort"] else range(len(texts))
        labels = [""] * len(texts)
        for start in range(0, len(texts), job.settings["batch"]):
            members = order[start : start + job.settings["batch"]]
            inputs = tokenizer([texts[i] for i in members], return_tensors="pt", padding=True)
            with torch.inference_mode():
                best = model(**inputs).logits.argmax(-1).tolist()
            for i, label in zip(members, best, strict=True):
                labels[i] = model.config.id2label[label]
        return labels

    return classify, Engine.version
