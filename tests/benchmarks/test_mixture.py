"""The race of a mixture of experts: its GGUF file is its checkpoint, the bytes of a token, and the page."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from intaglio.benchmarks import mixture
from intaglio.benchmarks.artifacts import mixture_gguf
from intaglio.benchmarks.artifacts.mixture_bytes import bytes_per_token
from intaglio.benchmarks.artifacts.random_checkpoint import SHAPES, write
from intaglio.benchmarks.artifacts.store import ArtifactStore
from intaglio.benchmarks.harness.records import Key, Records
from intaglio.benchmarks.pages import mixture_page
from intaglio.benchmarks.pages.tables import VariantFacts
from intaglio.models.checkpoint import Checkpoint

TINY = "qwen2-moe-tiny"
LLAMA = mixture.LLAMA["Q4_0"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("random") / "checkpoint", TINY)


@pytest.fixture(scope="module")
def gguf_file(checkpoint: Path) -> Path:
    mixture_gguf.main(str(checkpoint), str(checkpoint.parent / "checkpoint.gguf"))
    return checkpoint.parent / "checkpoint.gguf"


def test_the_gguf_file_is_the_checkpoint(checkpoint: Path, gguf_file: Path) -> None:
    source, found = Checkpoint(checkpoint), Checkpoint(gguf_file)
    assert found.tensors.keys() == source.tensors.keys()
    assert all(torch.equal(found.tensor(name).float(), source.tensor(name).float()) for name in source.tensors)
    assert found.config.experts == source.config.experts
    assert found.config.rope == source.config.rope
    ids = torch.tensor([[5, 900, 77, 1203, 8]])
    with torch.no_grad():
        assert torch.equal(found.load()(ids).logits, source.load()(ids).logits)


def test_a_tied_embedding_is_the_head_of_the_gguf_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "tied", TINY, changes={"tie_word_embeddings": True, "num_hidden_layers": 1})
    mixture_gguf.main(str(folder), str(tmp_path / "tied.gguf"))
    found = Checkpoint(tmp_path / "tied.gguf")
    assert torch.equal(found.tensor("lm_head.weight"), Checkpoint(folder).tensor("model.embed_tokens.weight"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp_only_layers": [1]}, "layer 1 has no experts, and llama.cpp has them in every layer of a qwen2moe"),
        ({"vocab_size": 200}, "the vocabulary has 200 tokens; llama.cpp's tokenizer needs 258"),
    ],
)
def test_what_llama_cpp_cannot_load_is_not_written(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write(tmp_path / "source", TINY, changes=changes)
    with pytest.raises(SystemExit, match=message):
        mixture_gguf.main(str(folder), str(tmp_path / "out.gguf"))


def test_bytes_of_a_token_in_a_gguf_file(gguf_file: Path) -> None:
    hidden, inner, shared, vocabulary = 128, 96, 192, 2048
    found = bytes_per_token(gguf_file)
    assert found["experts"] == 2 * 2 * 3 * hidden * inner * 2  # layers, chosen, projections, bfloat16
    assert found["shared expert"] == 2 * 3 * hidden * shared * 2
    assert found["routers"] == 2 * (8 + 1) * hidden * 4
    assert found["LM head"] == vocabulary * hidden * 2
    assert found["attention"] == 2 * ((hidden + 64 + 64 + hidden) * hidden * 2 + (hidden + 64 + 64) * 4)
    assert "embedding" not in found


def test_a_file_without_experts_is_refused(tmp_path: Path) -> None:
    from intaglio.tests.models.gguf import make

    path = make.write(tmp_path / "tiny.gguf", make.config("qwen2"))
    with pytest.raises(ValueError, match=r"tiny\.gguf has no experts"):
        bytes_per_token(path)


def test_each_round_measures_the_machine_and_both_kernels() -> None:
    found = mixture.measurements([mixture.OWN, mixture.ONNXRUNTIME, LLAMA], [512])
    assert [one.key(3) for one in found] == [
        Key("bandwidth", "machine", "", 3),
        Key("speed", "int4-rtn-b32", "", 3),
        Key("speed", "int4-rtn-b32-onnxruntime", "", 3),
        Key("speed", "llama-q4-0", "", 3),
    ]
    assert [one.settings.get("kernels") for one in found] == [None, None, "onnxruntime", None]
    assert all(one.settings["long"] == [512] for one in found[1:])


def test_prompts_are_numbers_that_fit(tmp_path: Path) -> None:
    for prompts, said in (
        ("512,many", "'many' is not a number of tokens; write them like 512,2048."),
        ("512,9000", "9,000 tokens are more than 8,447, the most that fit."),
    ):
        result = CliRunner().invoke(mixture.main, ["--scratch", str(tmp_path), "--prompts", prompts])
        assert result.exit_code == 2
        assert f"'--prompts': {said}" in result.output
    assert not list(tmp_path.iterdir())


def test_the_shapes_are_mixtures() -> None:
    assert mixture.MIXTURES == ("qwen1.5-moe-a2.7b", TINY)
    real = SHAPES["qwen1.5-moe-a2.7b"]
    assert mixture._described(real, "a", 4, 151936) == (
        "a with 4 layers and 151,936 tokens: hidden 2048, 60 experts of 1408 in each layer, 4 chosen, a shared one of "
        "5632"
    )


def test_the_table_of_bytes_has_the_speed_of_reading(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    for number, decode in enumerate((90.0, 100.0, 130.0)):
        records.add(Key("speed", "int4-rtn-b32", "", number), {"decode": decode})
    facts = [
        VariantFacts("int4-rtn-b32", "intaglio", disk=900_000_000, step=150_000_000),
        VariantFacts("llama-q4-0", "llama.cpp", disk=800_000_000, step=120_000_000),
    ]
    parts = {
        "int4-rtn-b32": {"experts": 100_000_000, "LM head": 49_900_000, "routers": 100_000},
        "llama-q4-0": {"experts": 80_000_000, "LM head": 40_000_000},
    }
    lines = mixture_page.reading(records, facts, parts).splitlines()
    assert lines[0] == (
        "| tool | variant | disk MB | experts, MB | LM head, MB | routers, MB | a token, MB | decode reads, GB/s |"
    )
    assert lines[2] == "| intaglio | int4-rtn-b32 | 900 | 100.0 | 49.9 | 0.100 | 150.0 | 15.0 |"
    assert lines[3] == "| llama.cpp | llama-q4-0 | 800 | 80.0 | 40.0 | 0.000 | 120.0 |  |"


def test_the_page_compares_what_was_measured(tmp_path: Path, gguf_file: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    variants = [replace(LLAMA, name=name) for name in ("one", "two")]
    for number in range(2):
        records.add(Key("bandwidth", "machine", "", number), {"gbs": 20.0, "best": 21.0})
        for name, decode in (("one", 60.0), ("two", 40.0)):
            figures = {"decode": decode, "first": {"128": 0.5, "512": 2.0}, "load": 1.0, "peak": 500.0, "version": name}
            records.add(Key("speed", name, "", number), figures)
    store = ArtifactStore(tmp_path, tmp_path, finished=dict.fromkeys(("one", "two"), gguf_file))
    text = mixture_page.body(records, variants, store, "a shape", 2, [512])
    assert text.startswith("- a shape\n\n- ")
    assert "| llama.cpp | one | 60.0 | 60.0 to 60.0 |" in text
    assert "prefill 512 tok/s" in text
    assert "prefill 2048 tok/s" not in text
    assert "| llama.cpp | two | 1.50 | 1.00 | 1.00 | 1.00 | 1.00 |" in text
    mixture_page.write(tmp_path / "report", text)
    page = (tmp_path / "report" / "mixture.md").read_text(encoding="utf-8")
    assert page.startswith("# Mixtures of experts\n\n<!-- begin: written by mixture.py -->\n\n- a shape\n")


def test_without_llama_cpp_the_bytes_of_int4_are_printed(tmp_path: Path) -> None:
    arguments = ["--scratch", str(tmp_path), "--shape", TINY, "--layers", "1", "--rounds", "0"]
    done = CliRunner().invoke(mixture.main, arguments)
    assert done.exit_code == 0, done.output
    assert "qwen2-moe-tiny with 1 layer and 2,048 tokens: hidden 128, 8 experts of 96 in each layer" in done.output
    assert "| intaglio | int4-rtn-b32-onnxruntime | " in done.output
    assert "### Speed" not in done.output


def test_an_interpreter_that_does_not_run_is_named(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(click.ClickException, match="--llama-python /nowhere/python does not run"):
        mixture._gguf(tmp_path, checkpoint, "/nowhere/python")
