"""``intaglio inspect`` of the folder of an adapter."""

import json
from pathlib import Path

import torch
from intaglio.tests.cli.conftest import Run
from safetensors.torch import save_file

CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "Qwen/Qwen2-0.5B",
    "r": 4,
    "rank_pattern": {"v_proj": 2},
    "lora_alpha": 8,
    "use_rslora": True,
    "target_modules": ["q_proj", "v_proj"],
    "modules_to_save": ["lm_head"],
}


def write(folder: Path, **changes: object) -> Path:
    """Write an adapter of two layers as peft writes it."""
    folder.mkdir()
    tensors = {"base_model.model.lm_head.weight": torch.ones(10, 8)}
    for layer in range(2):
        for name, rank in (("q_proj", 4), ("v_proj", 2)):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.ones(rank, 8)
            tensors[f"{stem}.lora_B.weight"] = torch.ones(8, rank)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "lora")
    # Of each layer 2 * 4 * 8 and 2 * 2 * 8 numbers, and 80 of the head.
    assert run("inspect", folder).stdout.splitlines() == [
        f"adapter     {folder}",
        "base        Qwen/Qwen2-0.5B",
        "method      LORA, ranks 2 to 4, alpha 8, rslora",
        "changes     q_proj (2), v_proj (2)",
        "replaces    lm_head (1)",
        "task        text-generation",
        "parameters  272 in 9 tensors, 1.09 kB as fp32",
        f"export      export the base with it: `intaglio export Qwen/Qwen2-0.5B OUT --adapter {folder}`",
    ]


def test_an_adapter_as_json(run: Run, tmp_path: Path) -> None:
    found = json.loads(run("inspect", write(tmp_path / "lora"), "--json").stdout)
    assert found["kind"] == "adapter"
    assert found["ranks"] == [2, 4]
    assert found["changes"] == {"q_proj": 2, "v_proj": 2}
    assert found["parameters"] == 272


def test_an_adapter_that_is_not_merged_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("inspect", write(tmp_path / "prompts", peft_type="PROMPT_TUNING"))
    assert result.exit_code == 2
    assert "peft_type is PROMPT_TUNING" in result.stderr
