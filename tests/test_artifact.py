"""The manifest: what is written is read back; what is damaged or hostile is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from intaglio.artifact import (
    MANIFEST,
    FileEntry,
    Manifest,
    ModelFacts,
    Parity,
    Quantization,
    Source,
    TensorEntry,
    read_manifest,
    sha256_file,
    verify,
)
from intaglio.errors import ArtifactError

MODEL = ModelFacts(
    vocab_size=151936,
    hidden_size=896,
    num_hidden_layers=2,
    num_attention_heads=14,
    num_key_value_heads=2,
    head_dim=64,
    layer_windows=(4096, None),
    context_length=32768,
    cache_dtype="float16",
    length_dependent_rope=True,
    pad_token_id=0,
    labels=("schlecht", "gut – 좋다"),
    problem_type="single_label_classification",
)
GRAPH = "onnx/model_fp16.onnx"
SOUND = Manifest(
    family="qwen2",
    task="text-classification",
    target="standard",
    precision="fp16",
    source=Source("org/name", None, "ab" * 32),
    model=MODEL,
    tensors={
        "w": TensorEntry("fp16", (4, 3), ("a.weight", "b.weight")),
        "s": TensorEntry("int64", (), ()),
        "q": TensorEntry("int4", (4, 3), ("c.weight",), Quantization(4, 32, False, "gptq", 0, 0.085, 1.5e-3)),
        "r": TensorEntry("int8", (4, 3), ("d.weight",), Quantization(8, 128, True, "rtn", 4, 0.0)),
    },
    operators={"MatMul": 7},
    tools={"intaglio": "0.1.0", "torch": "2.13.0"},
    files={GRAPH: FileEntry("0" * 64, 12)},
    parity=Parity("faithful"),
)


def write(folder: Path, data: Any) -> Path:
    (folder / MANIFEST).write_text(data if isinstance(data, str) else json.dumps(data))
    return folder


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert read_manifest(write(tmp_path, SOUND.to_json())) == SOUND


def test_the_text_is_utf8_and_ends_with_a_newline() -> None:
    assert "gut – 좋다" in SOUND.to_json()
    assert SOUND.to_json().endswith("}\n")


def test_no_folder_and_no_manifest(tmp_path: Path) -> None:
    remedy = "make one with `intaglio export`"
    with pytest.raises(ArtifactError) as caught:
        read_manifest(tmp_path / "none")
    assert str(caught.value) == f"{tmp_path}/none is not an intaglio artifact: there is no such folder; {remedy}"
    with pytest.raises(ArtifactError) as caught:
        read_manifest(tmp_path)
    assert str(caught.value) == f"{tmp_path} is not an intaglio artifact: it has no {MANIFEST}; {remedy}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b'{"format_version": ' + b"9" * 5000 + b"}", "cannot be read"),
        (
            b"{}",
            "format_version is None, this intaglio reads 2 and 3; export the model again, or use the intaglio that",
        ),
        (b'{"format_version": 1}', "format_version is 1, this intaglio reads 2 and 3"),
        (b'{"format_version": 4}', "format_version is 4, this intaglio reads 2 and 3"),
        (b'{"format_version": "2"}', "format_version is '2', this intaglio reads 2 and 3"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_manifest(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / MANIFEST))
    assert message in str(caught.value)


def test_a_manifest_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(ArtifactError, match=r"intaglio\.json cannot be read \(.*it is a folder"):
        read_manifest(tmp_path)


def at(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """Return an edit that sets the field at ``path`` set to a value."""

    def edit(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = to

    return edit


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def edit(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("task"), ": field 'task' is missing"),
        (without("model", "head_dim"), ": model: field 'head_dim' is missing"),
        (without("files", GRAPH, "size"), f": files: {GRAPH}: field 'size' is missing"),
        (at("extra", to=1), ": unknown field 'extra'"),
        (at("model", "extra", to=1), ": model: unknown field 'extra'"),
        (at("task", to="translation"), ": task: 'translation' is not a valid value"),
        (at("target", to=None), ": target: None is not a valid value"),
        (at("precision", to="fp8"), ": precision: 'fp8' is not a valid value"),
        (at("family", to=7), ": family: 7 is not a valid value"),
        (at("model", to=[]), ": model: expected an object"),
        (at("model", "vocab_size", to="many"), ": model: vocab_size: 'many' is not a valid value"),
        (at("model", "vocab_size", to=True), ": model: vocab_size: True is not a valid value"),
        (at("model", "vocab_size", to=1.5), ": model: vocab_size: 1.5 is not a valid value"),
        (at("model", "vocab_size", to=None), ": model: vocab_size: None is not a valid value"),
        (at("model", "length_dependent_rope", to=1), ": model: length_dependent_rope: 1 is not a valid value"),
        (at("model", "layer_windows", to=4096), ": model: layer_windows: 4096 is not a valid value"),
        (at("model", "layer_windows", to=[1, "2"]), ": model: layer_windows: '2' is not a valid value"),
        (at("model", "cache_dtype", to="float64"), ": model: cache_dtype: 'float64' is not a valid value"),
        (at("model", "labels", to="ab"), ": model: labels: 'ab' is not a valid value"),
        (at("tensors", to=[]), ": tensors: [] is not a valid value"),
        (at("tensors", "w", "shape", to=[4, "3"]), ": tensors: w: shape: '3' is not a valid value"),
        (without("tensors", "w", "quantization"), ": tensors: w: field 'quantization' is missing"),
        (without("tensors", "q", "quantization", "damage"), ": tensors: q: quantization: field 'damage' is missing"),
        (at("tensors", "q", "quantization", to="int4"), ": tensors: q: quantization: expected an object"),
        (
            at("tensors", "q", "quantization", "bits", to="4"),
            ": tensors: q: quantization: bits: '4' is not a valid value",
        ),
        (
            at("tensors", "q", "quantization", "symmetric", to=1),
            ": tensors: q: quantization: symmetric: 1 is not a valid value",
        ),
        (
            at("tensors", "q", "quantization", "error", to=None),
            ": tensors: q: quantization: error: None is not a valid value",
        ),
        (
            at("tensors", "q", "quantization", "block_size", to=0),
            ": tensors: q: no such quantization of 2 dimensions: Quantization(bits=4, block_size=0, symmetric=False, "
            "method='gptq', accuracy_level=0, error=0.085, kl_estimate=0.0015)",
        ),
        (
            at("tensors", "r", "shape", to=[4]),
            ": tensors: r: no such quantization of 1 dimensions: Quantization(bits=8, block_size=128, symmetric=True, "
            "method='rtn', accuracy_level=4, error=0.0, kl_estimate=None)",
        ),
        (at("tensors", "q", "quantization", "group", to=1), ": tensors: q: quantization: unknown field 'group'"),
        (at("files", GRAPH, to="abc"), f": files: {GRAPH}: expected an object"),
        (at("parity", "verdict", to="fine"), ": parity: verdict: 'fine' is not a valid value"),
        (
            at("files", "../../secret", to={"sha256": "0", "size": 1}),
            ": files: '../../secret' is not a plain file name",
        ),
        (at("files", "/etc/passwd", to={"sha256": "0", "size": 1}), ": files: '/etc/passwd' is not a plain file name"),
        (
            at("files", "onnx/../secret", to={"sha256": "0", "size": 1}),
            ": files: 'onnx/../secret' is not a plain file name",
        ),
        (
            at("files", "onnx/model.onnx", to={"sha256": "0", "size": 1}),  # another precision's
            ": files: 'onnx/model.onnx' is not a plain file name",
        ),
        (at("files", "a\\b", to={"sha256": "0", "size": 1}), r": files: 'a\\b' is not a plain file name"),
        (at("files", "..", to={"sha256": "0", "size": 1}), ": files: '..' is not a plain file name"),
        (at("files", "x" * 300, to={"sha256": "0", "size": 1}), f": files: '{'x' * 56}... is not a plain file name"),
        (at("files", "", to={"sha256": "0", "size": 1}), ": files: '' is not a plain file name"),
        (at("files", "a\0b", to={"sha256": "0", "size": 1}), r": files: 'a\x00b' is not a plain file name"),
        (
            at("files", GRAPH, "size", to=-1),
            f": files: {GRAPH}: size: -1 is not a valid value",
        ),
        (at("files", to={}), f": files: {GRAPH} is missing"),
        (at("model", "layer_windows", to=[None]), ": model: layer_windows has 1 entries for 2 layers"),
        (at("model", "layer_windows", to=[None, 0]), ": model: layer_windows: a window is at least 1"),
        (at("model", "head_dim", to=0), ": model: head_dim: 0 is not a valid value"),
        (at("model", "pad_token_id", to=-1), ": model: pad_token_id: -1 is not a valid value"),
        (at("tensors", "w", "shape", to=[4, -3]), ": tensors: a shape has a negative length"),
        (at("source", "revision", to=3), ": source: revision: 3 is not a valid value"),
    ],
)
def test_a_damaged_field_is_named(tmp_path: Path, edit: Callable[[dict[str, Any]], None], message: str) -> None:
    data = json.loads(SOUND.to_json())
    edit(data)
    with pytest.raises(ArtifactError) as caught:
        read_manifest(write(tmp_path, data))
    assert str(caught.value) == f"{tmp_path / MANIFEST}{message}; export the model again"


def test_sha256_hears_of_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    counts: list[int] = []
    assert sha256_file(path, counts.append) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sum(counts) == 3


def test_verify_reads_every_file_and_reports_progress(tmp_path: Path) -> None:
    files = {}
    (tmp_path / "onnx").mkdir()
    for name in (GRAPH, "tokenizer.json"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
        files[name] = FileEntry(sha256_file(tmp_path / name), len(name) * 1000)
    write(tmp_path, Manifest(**{**vars(SOUND), "files": files}).to_json())
    counts: list[int] = []
    assert verify(tmp_path, advance=counts.append) == []
    assert sum(counts) == 34000


def test_verify_names_what_differs(tmp_path: Path) -> None:
    entries = {name: FileEntry("0" * 64, 3) for name in ("gone", "cut", "changed", "folder")}
    (tmp_path / "cut").write_bytes(b"ab")
    (tmp_path / "changed").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    assert verify(tmp_path, Manifest(**{**vars(SOUND), "files": entries})) == [
        "gone: missing",
        "cut: 2 bytes, the manifest says 3",
        "changed: its SHA-256 differs from the manifest's",
        "folder: missing",
    ]
