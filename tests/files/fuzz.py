"""The file fuzzer: mutates every file of tiny checkpoints and artifacts, and counts how using them ends.

    python -m intaglio.tests.files.fuzz --cases 10000 --seed 0 --report report.json
    python -m intaglio.tests.files.fuzz --inputs GPTQ     # checkpoints of another format; --inputs "" for every one

Allowed are success and a refusal (an IntaglioError). A traceback, a crash or a hang is a defect, and exit code 1. Cases
run in a child process, which is replaced when it crashes or hangs. A case depends on the seed and its index alone:
``--only INDEX`` repeats one.
"""

import argparse
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from intaglio.exporter.sentence_transformers import SentenceTransformer
from intaglio.tests import tiny
from intaglio.tests.inputs.formats import cases as cases_of_formats
from intaglio.tests.runtime import fakes
from safetensors.torch import save_file

TIMEOUT = 60.0  # seconds of a case before it counts as a hang
DEFECTS = ("traceback", "crash", "hang")
Outcome = dict[str, str]


def make_base(folder: Path, *, exported: bool) -> Path:
    """Write the folders that are mutated; with ``exported`` also artifacts that intaglio writes, which takes longer."""
    folder.mkdir(parents=True)
    config = tiny.config("qwen2", num_hidden_layers=2, hidden_size=32, intermediate_size=32, num_attention_heads=2)
    tiny.write(folder / ("exportable" if exported else "checkpoint"), config, tokenizer=True)
    hybrid = tiny.config("exaone4", hidden_size=32, intermediate_size=32, num_attention_heads=2)
    tiny.write(folder / "sharded", hybrid, shards=2, tokenizer=True)
    write_merges(folder / "sharded")
    fakes.language_model(folder / "hand-made", files=fakes.settings(eos_token_id=2, do_sample=True, top_k=5))
    fakes.language_model(folder / "standard", target="standard")
    random = np.random.default_rng(0)
    write_modules(folder / "sentence", tiny.config("qwen2", "feature-extraction", hidden_size=32, num_hidden_layers=1))
    fakes.head(folder / "embedder", "feature-extraction", random.normal(size=(fakes.VOCAB, 32)))
    SentenceTransformer(folder / "sentence", 32).write(folder / "embedder")
    table = random.normal(size=(fakes.VOCAB, 2))
    fakes.head(folder / "classifier", "text-classification", table, labels=("good", "bad"))
    if exported:
        from intaglio import export, quantize
        from intaglio.exporter import QuantizeOptions

        templates = folder / "exportable" / "additional_chat_templates"
        templates.mkdir()
        (templates / "short.jinja").write_text("{{ messages[0].content }}")
        export(folder / "exportable", folder / "fp32")
        quantize(folder / "exportable", folder / "int4", options=QuantizeOptions(method="rtn"))
    return folder


def make_inputs(folder: Path, formats: str) -> Path:
    """Write checkpoints of other formats, one folder for each case whose format has the text ``formats`` in it."""
    chosen = [case for case in cases_of_formats() if formats.lower() in case.format.lower()]
    for index, case in enumerate(chosen):
        if case.requires is not None and importlib.util.find_spec(case.requires) is None:
            continue
        place = folder / f"{index} {case.format}, {case.variant}".replace("/", " ")
        with tempfile.TemporaryDirectory() as scratch:
            source = case.make(Path(scratch), ("qwen2", "exaone4")[index % 2])
            whole = case.adapters is not None or source.is_file()
            shutil.copytree(scratch if whole else source, place)
    return folder


def write_merges(folder: Path) -> None:
    """Write the tokenizer of a folder as vocab.json and merges.txt, and its tokens as added_tokens.json."""
    content = json.loads((folder / "tokenizer.json").read_bytes())
    (folder / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    lines = (merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"])
    (folder / "merges.txt").write_text("\n".join(("#version: 0.2", *lines)), encoding="utf-8")
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "tokenizer.json").unlink()


def write_modules(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a checkpoint of sentence-transformers: pooling, a dense layer and prompts."""
    tiny.write(folder, config, tokenizer=True)
    width = config["hidden_size"]
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {"in_features": width, "out_features": 8, "bias": True},
        "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {"query": "find: "}, "default_prompt_name": "query"},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    tensors = {"linear.weight": torch.ones(8, width), "linear.bias": torch.ones(8)}
    save_file(tensors, folder / "2_Dense" / "model.safetensors")


class Worker:
    """The child process in which cases run."""

    def __init__(self, base: Path, folder: Path, seed: int) -> None:
        self._case = {"base": str(base), "folder": str(folder), "seed": seed}
        self._process: subprocess.Popen[str] | None = None

    def run(self, index: int) -> Outcome:
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(self._case | {"index": index}) + "\n")
        process.stdin.flush()
        if select.select([process.stdout], [], [], TIMEOUT)[0]:
            if line := process.stdout.readline():
                answer: Outcome = json.loads(line)
                return answer
            outcome = {"outcome": "crash", "message": f"exit code {process.wait()}"}
        else:
            outcome = {"outcome": "hang", "message": f"no answer after {TIMEOUT:.0f} s"}
        self.close()
        return {"verb": "?", "what": "?", **outcome}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> "subprocess.Popen[str]":
        settings = {"RUST_BACKTRACE": "0", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "intaglio.tests.files.drive"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | settings,
        )


def fuzz(
    cases: range, seed: int, *, exported: bool = False, inputs: str | None = None, report: Path | None = None
) -> dict[str, Any]:
    """Run cases; return the counts of outcomes, in all and by verb, and every case that is a defect.

    Args:
        inputs: mutate checkpoints of the formats with this text in their names instead.
    """
    began = time.monotonic()
    totals, verbs, defects = Counter[str](), Counter[str](), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        if inputs is None:
            make_base(base, exported=exported)
        else:
            make_inputs(base, inputs)
        worker = Worker(base, Path(scratch) / "case", seed)
        try:
            for index in cases:
                outcome = worker.run(index)
                totals[outcome["outcome"]] += 1
                verbs[f"{outcome['verb']}: {outcome['outcome']}"] += 1
                if outcome["outcome"] in DEFECTS:
                    defects.append({"index": index, **outcome})
        finally:
            worker.close()
            shutil.rmtree(scratch, ignore_errors=True)
    found = {
        "seed": seed,
        "cases": len(cases),
        "seconds": round(time.monotonic() - began, 1),
        "totals": dict(totals),
        "verbs": dict(sorted(verbs.items())),
        "defects": defects,
    }
    if report is not None:
        report.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def main() -> None:
    """Run the fuzzer from the command line."""
    parser = argparse.ArgumentParser(description="Mutate files, use them, and count how it ends.")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="INDEX", help="run this case alone")
    parser.add_argument("--quick", action="store_true", help="leave out what has to be exported first")
    parser.add_argument(
        "--inputs", metavar="FORMAT", help="checkpoints of other formats whose name has this text in it"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the outcomes as JSON")
    options = parser.parse_args()
    cases = range(options.cases) if options.only is None else range(options.only, options.only + 1)
    found = fuzz(cases, options.seed, exported=not options.quick, inputs=options.inputs, report=options.report)
    write = sys.stdout.write
    for one in found["defects"]:
        write(f"case {one['index']}: {one['outcome']}: {one['verb']}: {one['what']}\n{one['message']}\n")
    write(json.dumps({key: found[key] for key in ("seed", "cases", "seconds", "totals")}) + "\n")
    sys.exit(1 if found["defects"] else 0)


if __name__ == "__main__":
    main()
