"""Faithful artifacts of every kind, none of which a check may call broken."""

from collections.abc import Mapping
from typing import Any

from intaglio.tests.models.variants import BY_NAME

from .artifacts import Base

TASKS = ("text-generation", "feature-extraction", "text-classification", "token-classification", "question-answering")
QWEN, EXAONE, SST2 = "tiny-qwen2", "tiny-exaone4", "tiny-qwen2-sst2"


def variant(name: str, target: str = "ort", task: str = "text-generation", seed: int = 0, shards: int = 1) -> Base:
    """One of the configurations of ``tests/models/variants.py``, with random weights in float32."""
    known = BY_NAME[name]
    return Base(
        known.family,
        task,
        target=target,
        changes=known.changes,
        rope=known.rope,
        spelling=known.spelling,
        seed=seed,
        shards=shards,
    )


def quantized(
    trained: str, precision: str, method: str, target: str = "ort", task: str = "text-generation", **options: Any
) -> Base:
    settings: Mapping[str, Any] = {"method": method, **({"windows": 2} if method != "rtn" else {}), **options}
    family = "exaone4" if "exaone4" in trained else "qwen2"
    return Base(family, task, precision, target, options=settings, trained=trained)


FLOAT = [
    *(Base("qwen2", task, target="ort", seed=1) for task in TASKS),
    *(Base("exaone4", task, target="standard", seed=2) for task in TASKS),
    *(Base("qwen2", task, target="standard", seed=3, changes={"use_sliding_window": True}) for task in TASKS),
    *(Base("exaone4", task, target="ort", seed=4) for task in TASKS),
    variant("qwen2-max-window-layers", seed=5),
    variant("qwen2-window-2", seed=6),
    variant("qwen2-mqa", "standard", seed=7),
    variant("qwen2-tied", shards=3, seed=8),
    variant("qwen2-rope-linear-v4", seed=9),
    variant("qwen2-rope-yarn", "standard", seed=10),
    variant("qwen2-rope-dynamic", seed=11),
    variant("qwen2-rope-longrope", "standard", seed=12),
    variant("qwen2-window-yarn", seed=13),
    variant("qwen2-one-layer", seed=14),
    variant("exaone4-mha", seed=15),
    variant("exaone4-pattern-LLLG", seed=16),
    variant("exaone4-pattern-4", "standard", seed=17),
    variant("exaone4-window-2", seed=18),
    variant("exaone4-global", shards=2, seed=19),
    variant("exaone4-rope-llama3", seed=20),
    variant("exaone4-rope-theta", "standard", seed=21),
    variant("exaone4-hybrid-longrope", seed=22),
    variant("exaone4-tied", "standard", seed=23),
    variant("exaone4-head-dim-32", task="token-classification", seed=24),
    variant("qwen2-head-dim-10", "standard", seed=25),
    *(Base(f, trained=t, target=g) for f, t, g in (("qwen2", QWEN, "standard"), ("exaone4", EXAONE, "ort"))),
]
HALF = [
    Base("qwen2", precision="fp16", seed=1),
    Base("exaone4", precision="fp16", target="standard", seed=2),
    Base("exaone4", "question-answering", precision="fp16", seed=3),
    Base("qwen2", "text-classification", precision="fp16", trained=SST2),
    Base("exaone4", precision="fp16", trained=EXAONE),
]
INT8 = [
    Base("exaone4", precision="int8", options={"method": "rtn"}, seed=1),
    Base("qwen2", "text-classification", "int8", "standard", options={"method": "rtn"}, seed=2),
    quantized(QWEN, "int8", "rtn"),
    quantized(QWEN, "int8", "smoothquant"),
    quantized(EXAONE, "int8", "gptq"),
    quantized(EXAONE, "int8", "rtn", "standard", block_size=128),
    quantized(SST2, "int8", "rtn", task="text-classification"),
]
INT4 = [
    quantized(QWEN, "int4", "rtn"),
    quantized(QWEN, "int4", "gptq"),
    quantized(QWEN, "int4", "awq"),
    quantized(QWEN, "int4", "auto"),
    quantized(QWEN, "int4", "rtn", "standard", block_size=64),
    quantized(EXAONE, "int4", "rtn", block_size=16),
    quantized(EXAONE, "int4", "gptq", "standard"),
    quantized(EXAONE, "int4", "auto"),
    quantized(EXAONE, "int4", "rtn", keep={"*.down_proj": "int8", "lm_head": "float"}),
    quantized(SST2, "int4", "rtn", task="text-classification"),
    quantized(QWEN, "int4", "rtn", task="feature-extraction"),
    quantized(QWEN, "int4", "rtn", task="token-classification"),
    quantized(EXAONE, "int4", "rtn", task="question-answering"),
]
FAITHFUL = [*FLOAT, *HALF, *INT8, *INT4]


def case_name(base: Base) -> str:
    """Return the name of a test case."""
    parts = [base.trained or f"{base.family} {base.seed}", base.task, base.precision, base.target]
    return " ".join([*parts, *(str(value) for key, value in base.options.items() if key != "windows")])
