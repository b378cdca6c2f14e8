"""Make the tiny checkpoints of GPTQModel and auto-round in tests/inputs/fixtures.

    python -m intaglio.scripts.inputs.packed_fixtures gptqmodel
    python -m intaglio.scripts.inputs.packed_fixtures auto_round

Each library needs an environment of its own, beside torch and transformers: auto-round 0.16.1 from its wheel, GPTQModel
7.3.4 from its repository (on a machine with two cores: GPTQMODEL_CPU_WORKERS=2). Both run on the CPU. Beside the
checkpoint, ``dequantized.json`` has the SHA-256 of each weight's numbers in float32, little-endian and row by row, as
the library dequantizes them with its scales in float32.
"""

import importlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch
import transformers
from intaglio.tests import tiny
from intaglio.tests.inputs.library_folder import FIXTURES, digest
from safetensors.torch import load_file
from torch import Tensor, nn

KEPT = ("config.json", "model.safetensors", "quantize_config.json")

Make = Callable[[Path, Path], Mapping[str, Tensor]]
"""Quantizes a checkpoint into an empty folder; returns the weights that the library dequantizes from there."""


def with_gptqmodel(layout: str, *, act_order: bool, symmetric: bool) -> Make:
    """Return a way to quantize with GPTQModel, 4 bits in groups of 32."""

    def make(source: Path, out: Path) -> Mapping[str, Tensor]:
        library = importlib.import_module("gptqmodel")
        settings = library.QuantizeConfig(
            bits=4,
            group_size=32,
            desc_act=act_order,
            sym=symmetric,
            format=layout,
            act_group_aware=False,
            offload_to_disk=False,
        )
        model = library.GPTQModel.load(str(source), settings, device="cpu")
        generator = torch.Generator().manual_seed(0)
        texts = [torch.randint(3, 288, (64,), generator=generator).tolist() for _ in range(32)]
        model.quantize([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in texts], batch_size=1)
        model.save(str(out))
        dequantize = importlib.import_module("gptqmodel.utils.model_dequant").convert_gptq_file
        config = json.loads((out / "quantize_config.json").read_text(encoding="utf-8"))
        found = dequantize(out / "model.safetensors", torch.float32, config, "cpu")
        return {name: one for name, one in found.items() if name.endswith("_proj.weight")}

    return make


def with_auto_round(layout: str, *, symmetric: bool, **bits_by_part: int) -> Make:
    """Return a way to round to nearest with auto-round, in groups of 32, 4 bits where no other are given."""

    def make(source: Path, out: Path) -> Mapping[str, Tensor]:
        library = importlib.import_module("auto_round")
        model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float16)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        other = {
            name: {"bits": bits}
            for name, _ in model.named_modules()
            for part, bits in bits_by_part.items()
            if name.endswith(part)
        }
        rounding = library.AutoRound(
            model,
            tokenizer,
            bits=4,
            group_size=32,
            sym=symmetric,
            iters=0,
            disable_opt_rtn=True,
            enable_torch_compile=False,
            layer_config=other or None,
            device_map="cpu",
        )
        rounding.quantize_and_save(str(out), format=layout)
        written = next(path.parent for path in out.rglob("config.json"))
        for path in list(written.iterdir()) if written != out else []:
            path.rename(out / path.name)
        if layout.endswith("awq"):
            return _dequantized_awq(load_file(out / "model.safetensors"))
        loaded = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, device_map="cpu")
        return _dequantized(loaded, _by_product)

    return make


def _dequantized_awq(stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Dequantize as auto-round does; it loads AWQ through other libraries only, which ask for a GPU."""
    library = importlib.import_module("auto_round.export.export_to_awq.utils")
    found = {}
    for name in stored:
        if name.endswith(".qweight"):
            stem = name.removesuffix("qweight")
            parts = stored[name], stored[f"{stem}qzeros"], stored[f"{stem}scales"].float()
            found[f"{stem}weight"] = library.dequantize_gemm(*parts, 4, 32).t().contiguous()
    return found


def _by_product(layer: Any) -> Tensor:
    """Return the weight as what a layer computes from one-hot vectors, [K, N]."""
    layer.bias = None
    product: Tensor = layer(torch.eye(layer.infeatures))
    return product


def _dequantized(model: nn.Module, values: Callable[[Any], Tensor]) -> Mapping[str, Tensor]:
    found = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "qweight"):
            layer.scales = layer.scales.float()
            found[f"{name}.weight"] = values(layer).float().t().contiguous()
    return found


FIXTURE_MAKERS: Mapping[str, Mapping[str, tuple[str, Make]]] = {
    "gptqmodel": {
        "gptqmodel-act-order": ("qwen2", with_gptqmodel("gptq", act_order=True, symmetric=False)),
        "gptqmodel-v2": ("exaone4", with_gptqmodel("gptq_v2", act_order=False, symmetric=True)),
    },
    "auto_round": {
        "auto-round": ("qwen2", with_auto_round("auto_round", symmetric=False, down_proj=8)),
        "auto-round-gptq": ("exaone4", with_auto_round("auto_round", symmetric=True)),
        "auto-round-awq": ("qwen2", with_auto_round("auto_round:auto_awq", symmetric=False)),
        "awq": ("exaone4", with_auto_round("auto_awq", symmetric=False)),
    },
}


@click.command(help=__doc__)
@click.argument("library", type=click.Choice(list(FIXTURE_MAKERS)))
def main(library: str) -> None:
    """Make the fixtures of one library."""
    for name, (family, make) in FIXTURE_MAKERS[library].items():
        with tempfile.TemporaryDirectory() as place:
            source, out = Path(place) / "source", Path(place) / "out"
            tiny.write(source, tiny.config(family, dtype="float16"), dtype=torch.float16, tokenizer=True)
            weights = make(source, out)
            shutil.rmtree(FIXTURES / name, ignore_errors=True)
            (FIXTURES / name).mkdir(parents=True)
            for file in KEPT:
                if (out / file).exists():
                    shutil.copy(out / file, FIXTURES / name / file)
        digests = {key: digest(one) for key, one in sorted(weights.items())}
        (FIXTURES / name / "dequantized.json").write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
        click.echo(f"{name}: {len(digests)} weights")


if __name__ == "__main__":
    main()
