"""What intaglio computes for a case: the side that every runtime is compared with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from intaglio.runtime import (
    Embedder,
    QuestionAnswerer,
    SequenceClassifier,
    TextGenerator,
    TokenClassifier,
    load,
)
from intaglio.runtime.sequence.options import Options


def expected(artifact: Path, texts: Sequence[Any], new_tokens: int, *, alone: bool = False) -> list[Any]:
    """Return intaglio's output for each text, in the form of a runner's.

    Args:
        artifact: the folder.
        texts: of the case.
        new_tokens: how many tokens are generated.
        alone: without the repetition penalty of generation_config.json, which ONNX Runtime alone does not read.

    ONNX Runtime's kernels run: intaglio's own round int4 and int8 otherwise, and the runtimes have only the former.
    """
    with load(artifact, kernels="onnxruntime", threads=1) as model:
        return [_output(model, text, new_tokens, alone) for text in texts]


def _output(model: object, text: Any, new_tokens: int, alone: bool) -> Any:
    match model:
        case TextGenerator():
            penalty = 1.0 if alone else None  # None: that of the file
            options: Options = {"max_new_tokens": new_tokens, "temperature": 0.0, "repetition_penalty": penalty}
            return list(model.generate(cast(str, text), **options).token_ids)
        case SequenceClassifier():
            found = model([text])[0]
            return {"label": found.label, "score": found.score}
        case TokenClassifier():
            return [model.manifest.model.labels.index(tag.label) for tag in model([text])[0]]
        case QuestionAnswerer():
            (best,) = model(*text)
            return {"answer": best.text, "score": best.score}
        case Embedder():
            vector = model([text], pooling="last", normalize=False)[0]
            count = len(model.tokenizer.encode(text))
            return {"shape": [1, count, len(vector)], "values": np.round(vector[:16].astype(float), 6).tolist()}
    raise AssertionError(type(model))
