"""The estimate of a quantization against what one writes, computes and takes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, UsageError
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.exporter.estimate import estimate as module
from intaglio.exporter.estimate.estimate import Estimate, estimate
from intaglio.exporter.estimate.rates import Rates, measure_rates
from intaglio.exporter.quantize.decide import decide
from intaglio.exporter.quantize.layers.gptq_pass import solve_gptq
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.outline import Outline
from intaglio.models.reading.options import ReadOptions
from intaglio.models.storage.safetensors_files import SafetensorsFiles
from intaglio.tests import tiny
from torch.nn.modules.module import register_module_forward_hook

NONE = Rates(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def written(family: str, folder: Path, **keys: Any) -> Path:
    return tiny.write(folder, tiny.config(family, **keys), tokenizer=True)


def estimated(folder: Path, precision: Any = "int4", rates: Rates = NONE, **options: Any) -> Estimate:
    target = options.pop("target", "ort")
    asked = QuantizeOptions(**options)
    return estimate(folder, precision=precision, options=asked, target=target, rates=rates)


@pytest.mark.parametrize("family", ["qwen2", "exaone4", "qwen2_moe"])
@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("int4", {"method": "rtn"}),
        ("int4", {"method": "rtn", "target": "standard", "keep": {"*.v_proj": "float"}}),
        ("int8", {}),
        ("int4", {"windows": 2}),
    ],
    ids=str,
)
def test_the_size_is_that_of_the_artifact(family: str, precision: Any, options: dict[str, Any], tmp_path: Path) -> None:
    folder = written(family, tmp_path / "checkpoint")
    found = estimated(folder, precision, **options)
    options = dict(options)
    target = options.pop("target", "ort")
    manifest = quantize(
        folder, tmp_path / "out", precision=precision, options=QuantizeOptions(**options), target=target
    )
    pages = 4096 * len(manifest.tensors)
    assert found.least == found.most
    mixed = precision == "int4" and "method" not in options
    slack = 0.03 * found.least if mixed else 0  # the steps of a mix are as large as a small weight
    assert found.least - slack <= manifest.files[manifest.data].size <= found.least + pages + slack
    # config.json alone gives the same.
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "config.json").write_bytes((folder / "config.json").read_bytes())
    alone = estimated(tmp_path / "alone", precision, target=target, **options)
    assert replace(alone, base=None, free=None) == replace(found, base=None, free=None)


def test_no_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written("qwen2", tmp_path / "checkpoint")

    def fails(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("a weight is read")

    monkeypatch.setattr(SafetensorsFiles, "read", fails)
    found = estimated(folder, windows=2)
    assert found.parameters == sum(tensor.numel() for tensor in tiny.weights(tiny.config("qwen2")).values())
    with pytest.raises(AssertionError, match="a weight is read"):
        quantize(folder, tmp_path / "out")
    (folder / "model.safetensors").unlink()
    outline = Outline(folder, ReadOptions())
    with pytest.raises(CheckpointError) as caught:
        outline.rows("model.embed_tokens.weight")
    assert str(caught.value) == f"{folder} has no weights; fetch the whole checkpoint"


def test_a_model_of_32_billion_parameters(tmp_path: Path) -> None:
    values = tiny.config("exaone4", "text-generation", vocab_size=102400, hidden_size=5120, intermediate_size=27392)
    values |= {"num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128}
    values |= {"layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 16, "max_position_embeddings": 131072}
    (tmp_path / "config.json").write_text(json.dumps(values))
    found = estimated(tmp_path)
    assert 31e9 < found.parameters < 34e9
    assert 4.9 < 8 * found.least / found.parameters < 5.0
    layer, hessian = 4 * 5120 * (5120 * 2 + 1024 * 2 + 3 * 27392), 4 * 27392**2
    assert found.memory is not None
    assert layer + 3 * hessian < found.memory < 20 * hessian
    # Every layer is the same work: twice the layers take twice the time of calibration.
    rates = Rates(1e-12, 1e-12, 1e-12, 1e-12, 1e-12, 1e-9, 1e-9, 1e-9)
    values |= {"num_hidden_layers": 32, "layer_types": values["layer_types"][:32]}
    whole = estimated(tmp_path, rates=rates, method="gptq").seconds
    (tmp_path / "config.json").write_text(json.dumps(values))
    half = estimated(tmp_path, rates=rates, method="gptq").seconds
    assert whole["calibration"] == pytest.approx(2 * half["calibration"])


class Products:
    """The multiply-adds of linear maps while it is open."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, part: torch.nn.Module, given: tuple[torch.Tensor, ...], _: object) -> None:
        if isinstance(part, torch.nn.Linear):
            self.count += given[0].numel() * part.out_features


@pytest.fixture
def products() -> Iterator[Products]:
    found = Products()
    handle = register_module_forward_hook(found)
    yield found
    handle.remove()


@pytest.mark.parametrize("family", ["qwen2", "exaone4", "qwen2_moe"])
def test_the_passes_are_those_of_gptq(family: str, tmp_path: Path, products: Products) -> None:
    """The multiplications of a run are those that the estimate counts, and those of two tokens that find the stages."""
    folder = written(family, tmp_path / "checkpoint")
    checkpoint = Checkpoint(folder)
    options = QuantizeOptions("gptq", windows=8)
    decision = decide(checkpoint, "text-generation", "ort", "int4", options)
    windows = torch.randint(288, (8, 128), generator=torch.Generator().manual_seed(0))
    products.count = 0
    solve_gptq(checkpoint, decision.schemes, windows, None, tmp_path / "scratch", lambda *_: None)
    run = products.count  # the estimate traces the graph, whose sizes are symbols
    config = checkpoint.config
    width = config.num_attention_heads * config.head_dim
    attention = config.num_hidden_layers * 2 * windows.numel() * windows.shape[1] * width
    counted = estimated(folder, rates=replace(NONE, forward=1.0), method="gptq", windows=8).seconds["calibration"]
    assert run == pytest.approx(counted - 2 * attention, rel=0.04)


def test_each_method_has_its_stages(tmp_path: Path) -> None:
    folder = written("qwen2", tmp_path / "checkpoint")
    rates = Rates(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

    def stages(precision: str, **options: Any) -> list[str]:
        return list(estimated(folder, precision, rates, **options).seconds)

    assert stages("int4") == ["sensitivity", "calibration", "weights"]
    assert stages("int4", calibration="self") == ["text", "sensitivity", "calibration", "weights"]
    assert stages("int4", method="rtn") == stages("int8") == ["weights"]
    assert stages("int4", method="awq") == ["sensitivity", "weights"]
    assert stages("int8", method="smoothquant") == ["sensitivity", "calibration", "weights"]


def test_a_target_kl_leaves_the_size_open(tmp_path: Path) -> None:
    folder = written("qwen2", tmp_path / "checkpoint")
    found = estimated(folder, target_kl=0.1)
    exact = estimated(folder, target_size=found.least + 20_000)
    assert found.least < exact.least < found.most
    with pytest.raises(UsageError, match="target size is 1,000 bytes, and the weights take at least"):
        estimated(folder, target_size=1000)


def test_the_rates_are_measured_on_the_largest_projection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(rows: int, columns: int) -> Rates:
        asked.append((rows, columns))
        return NONE

    monkeypatch.setattr(module, "measure_rates", measured)
    folder = written("qwen2", tmp_path / "checkpoint")
    estimate(folder, precision="int4", options=QuantizeOptions())
    assert asked == [(96, 64)]


def test_rates_are_of_a_processor() -> None:
    rates = measure_rates(256, 128)
    assert 1e-14 < rates.forward < 1e-7
    assert 1e-14 < rates.float32 < 1e-7
    for rate in (rates.few_rows, rates.factor, rates.column, rates.rounding, rates.writing):
        assert 1e-13 < rate < 1e-4


RUN = """
import json, sys
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.exporter.estimate.estimate import estimate
from intaglio.exporter.estimate.rates import Rates
from intaglio.machine import peak_rss
folder, out = sys.argv[1:]
options = QuantizeOptions(windows=16)
found = estimate(folder, precision="int4", options=options, rates=Rates(*[0.0] * 8))
quantize(folder, out, options=options)
print(json.dumps([found.base, found.memory, peak_rss()]))
"""


@pytest.mark.slow
def test_the_memory_is_that_of_a_run(tmp_path: Path) -> None:
    """The allocator and the libraries keep some memory of their own, so that the limits are wide."""
    folder = written(
        *("qwen2", tmp_path / "checkpoint"),
        hidden_size=512,
        intermediate_size=3072,
        vocab_size=8192,
        num_hidden_layers=2,
        max_position_embeddings=1024,
    )
    done = subprocess.run(
        [sys.executable, "-c", RUN, folder, tmp_path / "out"], capture_output=True, text=True, check=True
    )
    base, memory, peak = json.loads(done.stdout)
    assert peak - base > 200e6
    assert 0.5 < (memory - base) / (peak - base) < 2
    assert 0.7 < memory / peak < 1.4
