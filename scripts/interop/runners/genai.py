"""onnxruntime-genai: greedy text with its own tokenizer, whose ``encode_batch`` pads on the right."""

import json
import sys
from pathlib import Path
from typing import Any

import onnxruntime_genai as og  # pyright: ignore[reportMissingImports]  (in its own environment)


def generate(model: Any, tokens: Any, rows: int, length: int, new: int) -> list[list[int]]:
    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=False, batch_size=rows, max_length=length + new)
    generator = og.Generator(model, params)
    generator.append_tokens(tokens)
    while not generator.is_done():
        generator.generate_next_token()
    return [[int(token) for token in generator.get_sequence(row)[length:]] for row in range(rows)]


def run(case: dict[str, Any]) -> dict[str, Any]:
    if case["task"] != "text-generation":
        raise RuntimeError("onnxruntime-genai has no such task, it generates text only")
    model = og.Model(case["artifact"])
    tokenizer = og.Tokenizer(model)
    outputs = []
    for text in case["texts"]:
        tokens = tokenizer.encode(text)
        outputs += generate(model, tokens, 1, len(tokens), case["max_new_tokens"])
    batch = None
    if case["batch"]:
        tokens = tokenizer.encode_batch(case["batch"])
        batch = generate(model, tokens, len(case["batch"]), tokens.shape()[1], case["max_new_tokens"])
    return {"outputs": outputs, "batch": batch}


def main(case: str, result: str) -> None:
    found: dict[str, Any]
    try:
        found = run(json.loads(Path(case).read_text(encoding="utf-8")))
    except Exception as error:  # the runtime raises its own kinds
        found = {"refused": str(error).strip().splitlines()[0]}
    found["runtime"] = f"onnxruntime-genai {og.__version__}"
    Path(result).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
