"""A third family, entered as CONTRIBUTING.md says, exports, quantizes by every method and passes parity's check."""

import json
from pathlib import Path

import pytest
import torch
from intaglio.artifact import TARGETS, Target, Task
from intaglio.errors import UnsupportedError
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.exporter.quantize.options import QUANTIZED, Method, QuantizedPrecision
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.config import ConfigReader
from intaglio.models.family import FAMILIES, Family
from intaglio.models.heads import CausalLM, build
from intaglio.parity import CheckOptions, Report, check, render
from intaglio.runtime import load
from safetensors.torch import save_file

from . import burin, tiny, tiny_tokenizer

SHORT = CheckOptions(windows=1, window=40, steps=4, longest=64)
PROMPT = "The engraver cuts a design"


@pytest.fixture
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Family:
    """Register the record while the test runs."""
    record: Family = getattr(request, "param", burin.FAMILY)
    monkeypatch.setitem(FAMILIES, record.name, record)
    return record


def checkpoint(folder: Path, family: Family, task: Task = "text-generation") -> Path:
    """Write a random checkpoint of two layers with its tokenizer."""
    values = tiny.config("qwen2", task, num_hidden_layers=2, sliding_window=24)
    values = {key: value for key, value in values.items() if key not in ("use_sliding_window", "max_window_layers")}
    (architecture,) = (name for name, its_task in family.class_names.items() if its_task == task)
    values |= {"model_type": family.name, "architectures": [architecture], "slides": True}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    module = build(family.parse(ConfigReader(values, "config.json")), task)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in module.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in name:
            state[name] = 1 + 0.2 * noise
        else:  # embeddings outweigh what the layers add: 4 bits are too few for other random weights
            state[name] = noise if "embed_tokens" in name else 0.1 * noise
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    tiny_tokenizer.write(folder, values | {"model_type": "qwen2"})
    return folder


def checked(artifact: Path, source: Path) -> Report:
    """The report, which must name no faulty weight and no faulty operator, and can be shown."""
    report = check(artifact, source, options=SHORT)
    assert report.findings == ()
    assert report.verdict in ("faithful", "drifted")
    assert "Burin" in render(report)
    return report


@pytest.mark.parametrize("target", TARGETS)
def test_it_generates_what_the_definition_generates(tmp_path: Path, family: Family, target: Target) -> None:
    source = checkpoint(tmp_path / "source", family)
    export(source, tmp_path / "out", target=target)
    assert checked(tmp_path / "out", source).verdict == "faithful"
    with load(tmp_path / "out", task="text-generation") as model:
        assert model.tokenizer is not None
        found = model.generate(PROMPT, max_new_tokens=24, temperature=0.0)
        tokens = torch.tensor([model.tokenizer.encode(PROMPT)])
    assert list(found.token_ids) == greedy(source, tokens, len(found.token_ids))


def greedy(source: Path, tokens: torch.Tensor, count: int) -> list[int]:
    """The continuation by the native module, without a cache."""
    module = Checkpoint(source).load()
    assert isinstance(module, CausalLM)
    start = tokens.shape[1]
    with torch.inference_mode():
        for _ in range(count):
            tokens = torch.cat([tokens, module(tokens).logits[:, -1:].argmax(-1)], 1)
    continuation: list[int] = tokens[0, start:].tolist()
    return continuation


@pytest.mark.parametrize(
    "task",
    [
        "text-classification",
        "question-answering",
        pytest.param("feature-extraction", marks=pytest.mark.slow),
        pytest.param("token-classification", marks=pytest.mark.slow),
    ],
)
def test_it_has_every_head(tmp_path: Path, family: Family, task: Task) -> None:
    source = checkpoint(tmp_path / "source", family, task)
    export(source, tmp_path / "out")
    assert checked(tmp_path / "out", source).verdict == "faithful"


METHODS: list[tuple[QuantizedPrecision, Method]] = [
    *((precision, method) for precision in QUANTIZED for method in ("rtn", "gptq", "awq", "auto")),
    ("int8", "smoothquant"),
]
QUICK: dict[Target, set[tuple[QuantizedPrecision, Method]]] = {
    "ort": {("int4", "gptq"), ("int8", "awq"), ("int4", "auto"), ("int8", "smoothquant")},
    "standard": {("int4", "awq"), ("int8", "gptq")},
}
CASES = [
    pytest.param(target, *case, marks=() if case in QUICK[target] else pytest.mark.slow)
    for target in TARGETS
    for case in METHODS
    if not (target == "standard" and "smoothquant" in case)  # refused: it is for ONNX Runtime's own operators
]


@pytest.mark.parametrize(("target", "precision", "method"), CASES)
def test_every_method_quantizes_it(
    tmp_path: Path, family: Family, target: Target, precision: QuantizedPrecision, method: Method
) -> None:
    source = checkpoint(tmp_path / "source", family)
    options = QuantizeOptions(method=method, windows=2)
    manifest = quantize(source, tmp_path / "out", precision=precision, target=target, options=options)
    checked(tmp_path / "out", source)
    if method in ("awq", "smoothquant"):  # gate and up have scales that a norm takes
        gate = next(entry for name, entry in manifest.tensors.items() if "layers.0.mlp.gate_proj" in name)
        assert gate.quantization is not None
        assert gate.quantization.method == method


@pytest.mark.parametrize("family", [burin.BARE], indirect=True)
def test_a_record_leaves_out_the_norms_that_a_family_has_not(tmp_path: Path, family: Family) -> None:
    source = checkpoint(tmp_path / "source", family)
    options = QuantizeOptions(method="awq", windows=2)
    manifest = quantize(source, tmp_path / "out", precision="int8", options=options)
    checked(tmp_path / "out", source)
    methods = {name: entry.quantization.method for name, entry in manifest.tensors.items() if entry.quantization}
    assert {methods[name] for name in methods if "o_proj" in name or "down_proj" in name} == {"awq"}
    assert "awq" not in {methods[name] for name in methods if "gate_proj" in name}
    with pytest.raises(UnsupportedError, match="bare_burin has none there"):
        quantize(source, tmp_path / "no", precision="int8", options=QuantizeOptions(method="smoothquant", windows=1))
