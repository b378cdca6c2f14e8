"""Write the checkpoints of LLM Compressor under tests/inputs/fixtures: an environment with llmcompressor makes them.

    python -m intaglio.scripts.inputs.llmcompressor_checkpoints

Beside each stand the digests of its weights as compressed-tensors decompresses them, with scales in float32.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from intaglio.tests import tiny
from intaglio.tests.inputs.formats.compressed_tensors import FAMILIES, FIXTURES, decompressed

LAYERS = ["sliding_attention", "full_attention"]
SIZES: dict[str, Any] = {"num_hidden_layers": len(LAYERS), "vocab_size": 128, "tie_word_embeddings": True}
EIGHT = {"num_bits": 8, "type": "int", "symmetric": True}
GROUPS: dict[str, Any] = {
    "four": {
        "targets": ["re:.*mlp.*"],
        "weights": {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32},
    },
    "eight": {
        "targets": ["re:.*self_attn.*"],
        "weights": {**EIGHT, "strategy": "channel"},
        "input_activations": {**EIGHT, "strategy": "token", "dynamic": True},
    },
}
IGNORED = ["lm_head", "re:.*layers.0.mlp.down_proj"]


def main() -> None:
    from llmcompressor import oneshot  # pyright: ignore[reportMissingImports]
    from llmcompressor.modifiers.quantization import QuantizationModifier  # pyright: ignore[reportMissingImports]
    from transformers import AutoModelForCausalLM

    for family in FAMILIES:
        changes = SIZES | ({"layer_types": LAYERS, "sliding_window_pattern": 2} if family == "exaone4" else {})
        with tempfile.TemporaryDirectory() as place:
            source = tiny.write(Path(place), tiny.config(family, **changes), dtype=torch.bfloat16, tokenizer=True)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
            folder = FIXTURES / family
            recipe = QuantizationModifier(config_groups=GROUPS, ignore=IGNORED)
            oneshot(model=model, recipe=recipe, output_dir=str(folder))
        for other in folder.iterdir():
            if other.name not in ("config.json", "model.safetensors"):
                other.unlink()
        digests = {
            name: hashlib.sha256(weight.contiguous().numpy().tobytes()).hexdigest()
            for name, weight in decompressed(folder).items()
        }
        (folder / "digests.json").write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
