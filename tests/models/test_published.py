"""Configurations of published models and of what people made of them, with every key: read, and equal to transformers.

``published/read.json`` holds them by name, ``published/quantized.json`` those of quantized checkpoints (whose weights
tests/inputs reads), ``published/refused.json`` those that are refused, with a part of the message. ``layer_types`` is
written as ``{"repeated": [...], "count": n}``. For the comparison the sizes are shrunk and the ratio of query heads to
key-value heads is kept; no key is left out.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from intaglio import QuantizeOptions, load
from intaglio.errors import UnsupportedError
from intaglio.exporter import export
from intaglio.files.json_file import read_object
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.config import ConfigReader
from intaglio.models.family import FAMILIES
from intaglio.parity import CheckOptions, check
from intaglio.tests import tiny
from intaglio.tests.exporter.drive import CachedGraph, run, session

from .drive import TOLERANCE, difference

FOLDER = Path(__file__).parent / "published"
READ: dict[str, Any] = read_object(FOLDER / "read.json")
QUANTIZED: dict[str, Any] = read_object(FOLDER / "quantized.json")
REFUSED: dict[str, Any] = read_object(FOLDER / "refused.json")

LAYERS, VOCABULARY, WINDOW, LENGTH = 4, 288, 6, 14


def whole(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as it is published, with ``layer_types`` in full."""
    types = values.get("layer_types")
    if types is None:
        return values
    repeated = types["repeated"] * (types["count"] // len(types["repeated"]))
    return {**values, "layer_types": repeated}


def shrunk(published: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with smaller sizes, which every checkpoint of random weights can have."""
    values = whole(published)
    group = values["num_attention_heads"] // values["num_key_value_heads"]
    key_value = 1 if group > 2 else 2
    heads, layers = group * key_value, values["num_hidden_layers"]
    values = values | {
        "hidden_size": 16 * heads,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value,
        "vocab_size": VOCABULARY,
    }
    if "max_window_layers" in values:
        values["max_window_layers"] = values["max_window_layers"] * LAYERS // layers
    if values.get("sliding_window") is not None:
        values["sliding_window"] = WINDOW
    if "layer_types" in values:
        values["layer_types"] = values["layer_types"][:LAYERS]
    for size in ("moe_intermediate_size", "shared_expert_intermediate_size"):
        if size in values:
            values[size] = 32
    if "head_dim" in values:
        values["head_dim"] = 16
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if values.get(token) is not None:
            values[token] %= VOCABULARY
    return values


@pytest.mark.parametrize("name", [*READ, *QUANTIZED])
def test_is_read_in_its_own_size(name: str) -> None:
    values = whole((READ | QUANTIZED)[name])
    config = FAMILIES[values["model_type"]].parse(ConfigReader(values, "config.json"))
    assert (config.hidden_size, config.vocab_size) == (values["hidden_size"], values["vocab_size"])
    assert len(config.layer_windows) == values["num_hidden_layers"]


@pytest.mark.parametrize("name", READ)
def test_equals_transformers(name: str, tmp_path: Path) -> None:
    values = shrunk(READ[name])
    tiny.write(tmp_path, values)
    kind = getattr(transformers, values["architectures"][0])
    theirs = kind.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(0, VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, expected = Checkpoint(tmp_path).load()(ids), theirs(ids)
    output = "last_hidden_state" if "logits" not in expected else "logits"
    assert difference(getattr(ours, output), getattr(expected, output)) <= TOLERANCE


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(whole(REFUSED[name]["config"])))
    with pytest.raises(UnsupportedError) as caught:
        Checkpoint(tmp_path)
    assert REFUSED[name]["message"] in str(caught.value)


EXPORTED = (
    "Qwen1.5-7B-Chat with YaRN",
    "QwQ-32B with windows",
    "DeepSeek-R1-Distill-Qwen-1.5B",
    "Qwen2.5-1.5B saved by transformers 5.7",
    "A reward model by TRL on Qwen2.5-0.5B",
    "KaLM-embedding-multilingual-mini-v1",
    "EXAONE-4.0-1.2B",
    "EXAONE-4.0-32B",
)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort", "standard"])
@pytest.mark.parametrize("name", EXPORTED)
def test_exports_equal_transformers(name: str, target: Any, tmp_path: Path) -> None:
    values = shrunk(READ[name])
    tiny.write(tmp_path / "checkpoint", values, tokenizer=True)
    kind = getattr(transformers, values["architectures"][0])
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    theirs = kind.from_pretrained(tmp_path / "checkpoint", **options).eval()
    export(tmp_path / "checkpoint", tmp_path / "out", target=target)
    ids = torch.randint(3, VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = theirs(ids)
    if "logits" in expected and values["architectures"][0].endswith("ForCausalLM"):
        found = CachedGraph(tmp_path / "out")(ids, mask)
        assert difference(found, expected.logits) <= TOLERANCE
    else:
        feeds = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        found = torch.from_numpy(run(session(tmp_path / "out"), feeds)[0])
        assert difference(found, expected[0]) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Qwen2.5-0.5B", "QwQ-32B with windows", "EXAONE-4.0-1.2B", "EXAONE-4.0-32B"])
def test_generation_and_int4(name: str, tmp_path: Path) -> None:
    """Exported, it generates transformers' tokens; in int4, it computes what the rounded weights give.

    The widths are no multiples of a block here: 112 for 7 query heads to a key-value head, and 48.
    """
    values = shrunk(READ[name])
    source = tiny.write(tmp_path / "checkpoint", values, tokenizer=True)
    kind = getattr(transformers, values["architectures"][0])
    theirs = kind.from_pretrained(source, dtype=torch.float32).eval()
    export(source, tmp_path / "fp32")
    prompt = "Where is the stone? The engraver"
    with load(tmp_path / "fp32", task="text-generation") as lm:
        assert lm.tokenizer is not None
        ids = lm.tokenizer.encode(prompt)
        found = lm.generate([prompt], max_new_tokens=24, temperature=0)[0].token_ids
    expected = theirs.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :]
    assert list(found) == expected.tolist()
    export(source, tmp_path / "int4", precision="int4", options=QuantizeOptions(method="rtn"))
    report = check(tmp_path / "int4", source, options=CheckOptions(windows=2, window=64, steps=4), threads=1)
    assert report.findings == ()
    assert [tensor.fault for tensor in report.tensors if tensor.fault] == []
