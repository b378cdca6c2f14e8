"""One case of the file fuzzer: a mutated folder, one thing that is done with it, and how that ends.

Run as a module, this is the process in which cases run: it reads a line for each case and answers with a line.

    {"base": "/tmp/x/base", "folder": "/tmp/x/case", "index": 3, "seed": 0}
    {"outcome": "refused", "verb": "inspect", "what": "...", "message": "..."}
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intaglio.cli.main import cli
from intaglio.errors import IntaglioError
from intaglio.tests.files.input_mutations import mutate_input
from intaglio.tests.files.mutations import mutate

if TYPE_CHECKING:
    from intaglio.models.quantized.weights import BlockGrid
    from torch import Tensor

ADDRESS_SPACE = 4 << 30
"""Bytes that a case may map beyond what the process has before the first one."""

Verbs = dict[str, tuple[int, Callable[[Path], None]]]
"""What is done with a folder, by name, each with a weight: how often."""

GREETING = [{"role": "user", "content": "the stone"}]


class RefusedError(Exception):
    """The command line printed an error and ended with its exit code."""


def command(*arguments: object) -> None:
    """Run the command line in this process."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            cli.main([str(one) for one in arguments], prog_name="intaglio")
        except SystemExit as end:
            if end.code in (1, 2):
                raise RefusedError(errors.getvalue().strip()) from None
            if end.code not in (0, None):
                raise RuntimeError(f"exit code {end.code}: {errors.getvalue()}") from None


def read_checkpoint(folder: Path) -> None:
    """Read everything that an export reads of a checkpoint, with its weights."""
    from intaglio.models.checkpoint import Checkpoint
    from intaglio.runtime.text.tokenizer import try_tokenizer

    checkpoint = Checkpoint(folder)
    try_tokenizer(folder)
    checkpoint.load()


def source_of(folder: Path) -> Path:
    """Return what is exported of the folder of a case: the GGUF file in it, the base of an adapter, or the folder."""
    if (folder / "adapter").exists():
        return folder / "base"
    return next(iter(sorted(folder.glob("*.gguf"))), folder)


def adapter_options(folder: Path) -> tuple[str, ...]:
    """Return the options that merge the adapter of a case, if it has one."""
    return ("--adapter", str(folder / "adapter")) if (folder / "adapter").exists() else ()


def inspect_input(folder: Path, *options: str) -> None:
    """Describe the checkpoint, or the adapter alone."""
    alone = folder / "adapter"
    command("inspect", alone if alone.exists() else source_of(folder), *options)


def read_input(folder: Path) -> None:
    """Read every tensor, and compare the numbers of each grid with those that are read."""
    from intaglio.models.adapters.given import find_adapters
    from intaglio.models.checkpoint import Checkpoint
    from intaglio.models.reading.options import ReadOptions

    adapters = find_adapters([folder / "adapter"] if (folder / "adapter").exists() else [])
    checkpoint = Checkpoint(source_of(folder), ReadOptions(adapters=adapters))
    for name, info in checkpoint.tensors.items():
        tensor = checkpoint.tensor(name)
        if tuple(tensor.shape) != info.shape:
            raise RuntimeError(f"{name} is read as {tuple(tensor.shape)}, and its shape is {info.shape}")
        weight = checkpoint.quantized.get(name)
        if weight is not None and weight.grid is not None:
            compare_grid(weight.grid, tensor)


def compare_grid(grid: "BlockGrid", values: "Tensor") -> None:
    """Raise RuntimeError where the numbers of a grid are not the values of its weight."""
    import torch

    codes, shared = grid.codes(range(len(values))), grid.parameters()
    if int(codes.max()) >= 1 << grid.bits or int(shared.zero_points.max()) >= 1 << grid.bits:
        raise RuntimeError(f"a code or a zero point is beyond {grid.bits} bits")
    block = torch.arange(values.shape[1]) // grid.block_size
    found = shared.scales[:, block] * (codes.float() - shared.zero_points[:, block].float())
    if shared.offsets is not None:
        found += shared.offsets[:, block]
    if grid.order is not None:
        found[:, grid.order] = found.clone()
    if not torch.allclose(found, values, rtol=1e-5, atol=0, equal_nan=True) and values.isfinite().all():
        raise RuntimeError("the numbers of the grid are not those that are read")


def export_input(folder: Path, *options: str) -> None:
    """Export; where that is refused, nothing is written."""
    made = folder.parent / "made"
    try:
        command("export", source_of(folder), made, "--no-parity", *adapter_options(folder), *options)
    except RefusedError:
        if made.exists() or len(list(folder.parent.iterdir())) > 1:
            raise RuntimeError("a refused export left files") from None
        raise


def read_modules(folder: Path) -> None:
    """Read what an export reads of a checkpoint of sentence-transformers."""
    from intaglio.exporter.sentence_transformers import read_sentence_transformer

    read_checkpoint(folder)
    read_sentence_transformer(folder, 32)


def export(folder: Path, *options: str) -> None:
    command("export", folder, folder.parent / "made", "--no-parity", *options)


def quantize(folder: Path) -> None:
    command("quantize", folder, folder.parent / "made", "--method", "rtn", "--no-parity")


def chat(folder: Path) -> None:
    from intaglio import load

    with load(folder, task="text-generation", threads=1) as model:
        model.chat(GREETING, max_new_tokens=2)


def generate(folder: Path) -> None:
    command("generate", folder, "the stone", "--max-new-tokens", 2, "--threads", 1)


def sample(folder: Path) -> None:
    from intaglio import load

    with load(folder, task="text-generation", threads=1, kernels="onnxruntime") as model:
        model.generate("the stone", max_new_tokens=2, temperature=1.0, seed=0, logprobs=1)


CHECKPOINT: Verbs = {
    "inspect": (5, lambda folder: command("inspect", folder)),
    "inspect --json": (1, lambda folder: command("inspect", folder, "--json")),
    "read": (5, read_checkpoint),
}
EXPORT: Verbs = {
    "export": (2, export),
    "export fp16": (1, lambda folder: export(folder, "--precision", "fp16")),
    "quantize": (1, quantize),
}
ARTIFACT: Verbs = {
    "verify": (3, lambda folder: command("verify", folder)),
    "inspect": (2, lambda folder: command("inspect", folder)),
    "inspect --weights": (1, lambda folder: command("inspect", folder, "--weights")),
}
LANGUAGE_MODEL: Verbs = {
    **ARTIFACT,
    "generate": (5, generate),
    "chat": (4, chat),
    "sample": (2, sample),
    "score": (1, lambda folder: command("score", folder, "the stone is")),
}
VERBS: dict[str, Verbs] = {
    "checkpoint": CHECKPOINT,
    "sharded": CHECKPOINT,
    "exportable": CHECKPOINT | EXPORT,
    "hand-made": LANGUAGE_MODEL,
    "standard": LANGUAGE_MODEL,
    "fp32": LANGUAGE_MODEL | {"quantize": (2, quantize)},
    "int4": LANGUAGE_MODEL,
    "sentence": {"read": (5, read_modules), "inspect": (1, lambda folder: command("inspect", folder))},
    "embedder": ARTIFACT | {"embed": (8, lambda folder: command("embed", folder, "the stone", "--threads", 1))},
    "classifier": ARTIFACT | {"classify": (4, lambda folder: command("classify", folder, "the stone", "--threads", 1))},
}
"""What is done with each folder of the base, and how often."""

INPUT: Verbs = {
    "inspect": (3, inspect_input),
    "inspect --json": (2, lambda folder: inspect_input(folder, "--json")),
    "read": (8, read_input),
    "export": (3, export_input),
    "export fp32": (2, lambda folder: export_input(folder, "--precision", "fp32")),
}
"""What is done with a checkpoint of another format."""


def run_case(base: Path, folder: Path, index: int, seed: int) -> dict[str, str]:
    """Copy a folder of the base, mutate it, use it; return the outcome: ok, refused or traceback."""
    choice = random.Random(f"{seed} {index}")
    name = choice.choice(sorted(path.name for path in base.iterdir()))
    verbs = VERBS.get(name, INPUT)
    change = mutate if name in VERBS else mutate_input
    verb = choice.choices(list(verbs), [weight for weight, _ in verbs.values()])[0]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    target = folder / name
    shutil.copytree(base / name, target)
    report = {"verb": f"{name} {verb}", "what": change(target, choice), "outcome": "ok", "message": ""}
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            verbs[verb][1](target)
    except (IntaglioError, RefusedError) as error:
        report |= {"outcome": "refused", "message": str(error)}
    except BaseException as error:  # panics of libraries in Rust too
        report |= {"outcome": "traceback", "message": "".join(traceback.format_exception(error)[-12:])}
    return report


def trace_once() -> None:
    """Trace each kind of model once; tracing takes seconds, and is not what the files of a checkpoint reach."""
    from intaglio.exporter import trace

    original, traced = trace._export, dict[str, Any]()

    def cached(*arguments: Any) -> Any:
        key = repr(arguments)
        if key not in traced:
            traced[key] = original(*arguments)
        return traced[key].clone()

    trace._export = cached  # type: ignore[assignment]


def main() -> None:
    """Read cases from standard input, and write an outcome for each."""
    import onnxruntime
    import torch

    torch.set_num_threads(1)
    onnxruntime.set_default_logger_severity(4)
    trace_once()
    with Path("/proc/self/statm").open() as status:
        mapped = int(status.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
    for line in sys.stdin:
        case = json.loads(line)
        outcome = run_case(Path(case["base"]), Path(case["folder"]), case["index"], case["seed"])
        answers.write(json.dumps(outcome) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
