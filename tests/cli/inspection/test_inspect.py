"""``intaglio inspect`` of artifacts and checkpoints, against figures computed by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy
import pytest
from intaglio.cli.inspection.description import TensorGroup, describe_windows, group_tensors
from intaglio.tests import tiny
from intaglio.tests.cli.conftest import MakeArtifact, Run
from safetensors.numpy import save_file


def test_an_artifact(run: Run, make_artifact: MakeArtifact) -> None:
    folder = make_artifact()
    result = run("inspect", folder)
    assert result.exit_code == 0
    # 4096 * 64 + 64 float32 and 3 int64: 1,048,856 bytes. A token's cache: 2 * 2 heads * 16 * 4 bytes in each of the
    # 4 layers, of which the first three keep 32 + 63 tokens; as int8 it is 20/64 of that.
    assert result.stdout.splitlines() == [
        f"artifact    {folder}",
        "model       exaone4, text-generation",
        "parameters  262,208, 1.05 MB",
        "            fp32: 262,208 in 2 tensors, 1.05 MB",
        "            int64 computed: 3 in 1 tensor, 24 B",
        "shape       4 layers, hidden 64, vocabulary 4,096",
        "            4 heads, 2 KV heads, head_dim 16",
        "attention   window 32 in layers 0-2; global in layer 3",
        "context     8,192 tokens",
        "memory      1.05 MB of weights as fp32",
        "            + 335 kB of KV cache at 1,024 tokens = 1.38 MB (32.0% of one without windows; 105 kB as int8)",
        "            + 1.12 MB of KV cache at 4,096 tokens = 2.17 MB (26.7% of one without windows; 350 kB as int8)",
        "            + 2.17 MB of KV cache at 8,192 tokens = 3.22 MB (25.9% of one without windows; 678 kB as int8)",
        "target      ort",
        "operators   MatMul 12, com.microsoft::GroupQueryAttention 4",
        "tokenizer   none: no tokenizer.json, nor vocab.json with merges.txt; token ids only",
        "template    none: chat needs one",
        f"source      org/tiny @ {'0' * 40}",
        "tools       intaglio 0.1.0",
        "parity      not checked",
    ]


def test_an_artifact_as_json(run: Run, make_artifact: MakeArtifact) -> None:
    found = json.loads(run("inspect", make_artifact(), "--json", "--context-length", "100").stdout)
    assert found["kind"] == "artifact"
    assert found["layer_windows"] == [32, 32, 32, None]
    assert found["weight_bytes"] == 1048856
    assert found["parameters"] == 262208
    assert found["precisions"]["fp32"] == {"tensors": 2, "elements": 262208, "bytes": 1048832}
    assert found["memory"] == {
        "precision": "fp32",
        "weight_bytes": 1048856,
        "kv_cache": [{"tokens": 100, "bytes": 98560, "bytes_without_windows": 102400, "bytes_as_int8": 30800}],
    }
    assert found["operators"] == {"MatMul": 12, "com.microsoft::GroupQueryAttention": 4}


def test_an_artifact_without_a_cache(run: Run, make_artifact: MakeArtifact) -> None:
    folder = make_artifact(task="text-classification", labels=("bad", "good"), context_length=512)
    lines = run("inspect", folder).stdout
    assert "KV cache" not in lines
    assert "labels      bad, good\n" in lines
    assert json.loads(run("inspect", folder, "--json").stdout)["memory"]["kv_cache"] == []


def test_half_precision_halves_the_cache(run: Run, make_artifact: MakeArtifact) -> None:
    folder = make_artifact(cache_dtype="bfloat16")
    found = json.loads(run("inspect", folder, "--json", "--context-length", "100").stdout)
    (cache,) = found["memory"]["kv_cache"]
    assert cache == {"tokens": 100, "bytes": 49280, "bytes_without_windows": 51200, "bytes_as_int8": None}


def test_the_cache_of_the_32b_hybrid_as_int8(run: Run, make_artifact: MakeArtifact) -> None:
    """64 layers, 8 key-value heads of 128; 48 layers keep 4,096 + 255 of 131,072 tokens; a row has 128 + 4 bytes."""
    windows = tuple(None if layer % 4 == 3 else 4096 for layer in range(64))
    folder = make_artifact(
        layer_windows=windows,
        num_hidden_layers=64,
        num_key_value_heads=8,
        num_attention_heads=40,
        head_dim=128,
        context_length=131_072,
    )
    found = json.loads(run("inspect", folder, "--json", "--context-length", "131072").stdout)
    (cache,) = found["memory"]["kv_cache"]
    positions = 16 * 131072 + 48 * 4351
    assert cache["bytes"] == 2 * positions * 8 * 128 * 4
    assert cache["bytes_as_int8"] == 2 * positions * 8 * 132
    assert "4.87 GB as int8" in run("inspect", folder, "--context-length", "131072").stdout


def write_checkpoint(folder: Path) -> None:
    """A Qwen2 of one layer, in two dtypes; `inspect` reads headers only, so the values do not matter."""
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 32,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {
            "model.embed_tokens.weight": numpy.zeros((32, 8), numpy.float16),
            "model.norm.weight": numpy.zeros(8, numpy.float32),
        },
        folder / "model.safetensors",
    )


def test_a_checkpoint(run: Run, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "tiny")
    result = run("inspect", tmp_path / "tiny")
    assert result.exit_code == 0, result.stderr
    # 264 parameters, run as fp32; a token's cache: 2 * 1 layer * 1 head * 4 * 4 bytes.
    assert result.stdout.splitlines() == [
        f"checkpoint    {tmp_path / 'tiny'}",
        "model         qwen2, text-generation",
        "parameters    264, 544 B",
        "              F16: 256 in 1 tensor, 512 B",
        "              F32: 8 in 1 tensor, 32 B",
        "shape         1 layer, hidden 8, vocabulary 32",
        "              2 heads, 1 KV head, head_dim 4",
        "attention     global in every layer",
        "context       64 tokens",
        "memory        1.06 kB of weights as fp32",
        "              + 2.05 kB of KV cache at 64 tokens = 3.1 kB",
        "architecture  Qwen2ForCausalLM",
        "files         model.safetensors",
        "embeddings    tied",
        "rope          default",
        "tokenizer     none: no tokenizer.json, nor vocab.json with merges.txt; token ids only",
        "template      none: chat needs one",
    ]


def test_what_export_would_ask_about(run: Run, tmp_path: Path) -> None:
    values = tiny.config("qwen2", "feature-extraction", auto_map={"AutoModel": "modeling_qwen.Qwen2Model"})
    tensors = {f"module.{name}": tensor for name, tensor in tiny.weights(values).items()}
    tiny.write(tmp_path, values, tensors=tensors)
    (tmp_path / "adapter_config.json").write_text("{}")
    result = run("inspect", tmp_path, "--json")
    assert result.exit_code == 0, result.stderr
    notes = json.loads(result.stdout)["notes"]
    assert [note.split(" (")[0] for note in notes] == [
        "an adapter",
        "auto_map names code of the checkpoint's own",
        "tensor names are read without the prefix module.",
    ]
    assert "--attention bidirectional" in run("inspect", tmp_path).stdout


def test_bidirectional_attention(run: Run, tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.config("qwen2", "feature-extraction", is_causal=False))
    assert "attention     bidirectional in every layer" in run("inspect", tmp_path).stdout
    assert json.loads(run("inspect", tmp_path, "--json").stdout)["attention"] == "bidirectional"


def test_a_damaged_checkpoint_is_refused(run: Run, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "tiny")
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    result = run("inspect", tmp_path / "tiny")
    assert result.exit_code == 2
    assert f"{weights} is not a whole safetensors file" in result.stderr


def test_neither_a_checkpoint_nor_an_artifact(run: Run, tmp_path: Path) -> None:
    result = run("inspect", tmp_path / "nowhere")
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: {tmp_path / 'nowhere'} is neither a checkpoint nor an artifact: there is no such folder; "
        "give the folder of one\n",
    )
    assert "it has neither intaglio.json nor config.json" in run("inspect", tmp_path).stderr


def test_a_context_beyond_the_model_is_refused(run: Run, make_artifact: MakeArtifact) -> None:
    folder = make_artifact()
    result = run("inspect", folder, "--context-length", "8193")
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: --context-length 8,193: the context of {folder} is 8,192 tokens; give at most that\n",
    )


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([None, None], "global in every layer"),
        ([4096], "window 4,096 in every layer"),
        ([8, 8, 8, None, 8, 8, 8, None], "window 8 in layers 0-2, 4-6; global in layers 3, 7"),
        ([None, 8, 16], "window 8 in layer 1; window 16 in layer 2; global in layer 0"),
    ],
)
def test_describe_windows(layers: Sequence[int | None], words: str) -> None:
    assert describe_windows(layers) == words


def test_tensors_are_grouped_by_precision() -> None:
    tensors = [("fp32", 3, 12), ("int4", 15, 8), ("int4", 1, 1), ("fp32", 4, 16)]
    assert group_tensors(tensors) == {"int4": TensorGroup(2, 16, 9), "fp32": TensorGroup(2, 7, 28)}


def test_long_lists_are_wrapped_between_their_entries(run: Run, make_artifact: MakeArtifact) -> None:
    folder = make_artifact()
    manifest = json.loads((folder / "intaglio.json").read_text())
    manifest["operators"] = {f"com.microsoft::Operator{i}": i for i in range(9)}
    (folder / "intaglio.json").write_text(json.dumps(manifest))
    lines = run("inspect", folder).stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("operators"))
    shown = [line[12:] for line in lines[start : start + 3]]
    assert shown == [
        ", ".join(f"com.microsoft::Operator{i} {i}" for i in three) + end
        for three, end in (((0, 1, 2), ","), ((3, 4, 5), ","), ((6, 7, 8), ""))
    ]


def test_what_a_folder_reads_text_with(run: Run, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "source", tiny.config("qwen2"), tokenizer=True)
    found = json.loads(run("inspect", folder, "--json").stdout)
    assert (found["tokenizer"], found["template"]) == ("tokenizer.json", "default")
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (folder / "merges.txt").write_text("")
    (folder / "tokenizer.json").unlink()
    assert "tokenizer     built from vocab.json and merges.txt\n" in run("inspect", folder).stdout
    (folder / "merges.txt").unlink()
    (folder / "merges.txt").mkdir()
    found = json.loads(run("inspect", folder, "--json").stdout)
    assert found["tokenizer"].endswith("merges.txt cannot be read (it is a folder, not a regular file)")


def test_an_export_says_that_it_has_no_tokenizer(run: Run, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "source", tiny.config("qwen2"))
    result = run("export", folder, tmp_path / "out", "--no-parity")
    assert "tokenizer  none: no tokenizer.json, nor vocab.json with merges.txt; token ids only\n" in result.stdout
    assert "template   none: chat needs one\n" in result.stdout
    again = run("export", folder, tmp_path / "out", "--no-parity", "--force", "--json")
    assert json.loads(again.stdout)["tokenizer"].startswith("none: ")


def test_how_an_embedder_makes_vectors(run: Run, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "source", tiny.config("qwen2", "feature-extraction"))
    assert json.loads(run("inspect", folder, "--json").stdout)["embedding"] == "last, normalize"
    (folder / "modules.json").write_text("[]")
    assert json.loads(run("inspect", folder, "--json").stdout)["embedding"] == "modules.json of sentence-transformers"
    found = {"pooling": ["mean"], "steps": [{"kind": "dense"}, {"kind": "normalize"}], "prompts": {"query": "q: "}}
    (folder / "embedding.json").write_text(json.dumps(found))
    shown = json.loads(run("inspect", folder, "--json").stdout)["embedding"]
    assert shown == "mean, dense, normalize, prompt 'query'"
