"""Write the checkpoints of TorchAO under tests/inputs/fixtures: a transformers with torchao and accelerate makes them.

    python -m intaglio.scripts.inputs.torchao_checkpoints

Beside each stand the digests of its weights as TorchAO dequantizes them in float32, which the tests compare with.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from intaglio.tests import tiny
from intaglio.tests.inputs.formats.torchao import FAMILIES, FIXTURES, VARIANTS

LAYERS = ["sliding_attention", "full_attention"]
SIZES: dict[str, Any] = {"num_hidden_layers": len(LAYERS), "vocab_size": 128, "tie_word_embeddings": True}


def main() -> None:
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup  # pyright: ignore[reportMissingImports]
    from transformers import AutoModelForCausalLM, TorchAoConfig

    four_bits = getattr(torch, "int4")  # noqa: B009 - torch's stubs do not have it
    configs = {
        "int8": Int8WeightOnlyConfig(),
        "int4": IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=PerGroup(32)),
        "fp8": Float8WeightOnlyConfig(),
    }
    assert set(configs) == set(VARIANTS)
    for family in FAMILIES:
        changes = SIZES | ({"layer_types": LAYERS, "sliding_window_pattern": 2} if family == "exaone4" else {})
        with tempfile.TemporaryDirectory() as place:
            source = tiny.write(Path(place) / "source", tiny.config(family, **changes), dtype=torch.bfloat16)
            for name, config in configs.items():
                settings = TorchAoConfig(config)
                model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, quantization_config=settings)
                folder = FIXTURES / f"{name}-{family}"
                model.save_pretrained(folder)
                (folder / "generation_config.json").unlink(missing_ok=True)
                weights = {
                    key: dequantized(parameter)
                    for key, parameter in model.named_parameters()
                    if key.endswith("_proj.weight")
                }
                digests = {key: hashlib.sha256(one.numpy().tobytes()).hexdigest() for key, one in weights.items()}
                (folder / "digests.json").write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


def dequantized(parameter: Any) -> torch.Tensor:
    """Return a weight in float32, as TorchAO dequantizes it."""
    from torchao.quantization.quant_primitives import dequantize_affine  # pyright: ignore[reportMissingImports]

    if hasattr(parameter, "target_dtype"):
        weight: torch.Tensor = dequantize_affine(
            parameter.qdata,
            parameter.block_size,
            parameter.scale.float(),
            parameter.zero_point,
            torch.int8,
            output_dtype=torch.float32,
        )
        return weight.contiguous()
    weight = parameter.dequantize(output_dtype=torch.float32)
    return weight.detach().contiguous()


if __name__ == "__main__":
    main()
