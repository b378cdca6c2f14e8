"""Each family's record says what its module has."""

import pytest
import torch
from intaglio.models.config import ConfigReader
from intaglio.models.family import FAMILIES, GATE_UP, QKV, Family
from intaglio.models.layers import HeadNorm, RMSNorm
from intaglio.tests import burin, tiny

RECORDS = [*FAMILIES.values(), burin.FAMILY, burin.BARE]


@pytest.mark.parametrize("family", RECORDS, ids=lambda family: family.name)
def test_the_record_names_the_norms_of_a_layer(family: Family) -> None:
    values = tiny.config(family.name if family.name in tiny.CLASSES else "qwen2")
    if family.name not in tiny.CLASSES:
        values = {key: value for key, value in values.items() if "window" not in key}
    with torch.device("meta"):
        layer = family.trunk.layer(family.parse(ConfigReader(values, "config.json")), 1)  # with an MLP in each family
    modules = dict(layer.named_modules())
    norms = {name for name, module in modules.items() if isinstance(module, RMSNorm)}
    head_norms = {name for name in norms if isinstance(modules[name], HeadNorm)}
    assert norms - head_norms == set(family.layer_norms)
    assert head_norms == ({"self_attn.q_norm", "self_attn.k_norm"} if family.head_norms else set())
    assert {*QKV, *GATE_UP, "self_attn.o_proj", "mlp.down_proj"} <= set(modules)


def test_names_are_those_of_the_records() -> None:
    assert all(family.name == name for name, family in FAMILIES.items())
    assert FAMILIES["exaone4"].class_names["Exaone4ForCausalLM"] == "text-generation"
    assert FAMILIES["qwen2"].feeding_norms == {"input_layernorm": QKV, "post_attention_layernorm": GATE_UP}
    assert FAMILIES["exaone4"].feeding_norms == {}
