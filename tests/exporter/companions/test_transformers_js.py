"""config.json gets what transformers.js needs, and transformers reads the same config from it."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from intaglio.artifact import CacheDtype, Precision, Task
from intaglio.exporter.companions.transformers_js import KEY, config_text
from intaglio.tests import tiny

HALF = {"fp16": "float16", "q4f16": "float16"}


def written(folder: Path, precision: Precision = "int4", cache: CacheDtype = "float32", given: Any = None) -> Any:
    """Return the artifact's ``transformers.js_config``, where that of the checkpoint is ``given``."""
    values = {"model_type": "qwen2", KEY: given, "rope_theta": 1e6, "name": "슬"}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    found = json.loads(config_text(folder, "text-generation", precision, cache))
    assert found == values | {KEY: found[KEY]}
    return found[KEY]


@pytest.mark.parametrize(
    ("precision", "cache", "dtype"),
    [
        ("fp32", "float32", "fp32"),
        ("fp16", "float16", "fp16"),
        ("int8", "float32", "q8"),
        ("int4", "float32", "q4"),
        ("int4", "float16", "q4f16"),
    ],
)
def test_the_dtype_is_the_one_whose_file_is_there(
    tmp_path: Path, precision: Precision, cache: CacheDtype, dtype: str
) -> None:
    assert written(tmp_path, precision, cache) == {
        "dtype": dtype,
        "use_external_data_format": True,
        "kv_cache_dtype": HALF,
    }


@pytest.mark.parametrize(("precision", "cache"), [("bf16", "bfloat16"), ("int8", "float16"), ("int4", "bfloat16")])
def test_no_dtype_where_transformers_js_has_none(tmp_path: Path, precision: Precision, cache: CacheDtype) -> None:
    assert written(tmp_path, precision, cache) == {"use_external_data_format": True, "kv_cache_dtype": HALF}


def test_what_the_checkpoint_says_of_devices_stays_and_of_files_goes(tmp_path: Path) -> None:
    given = {
        "dtype": "fp16",
        "use_external_data_format": {"model.onnx": 3},
        "kv_cache_dtype": "float16",
        "device": "webgpu",
        "free_dimension_overrides": {"batch_size": 1},
        "device_config": {"webgpu": {"dtype": "q4f16", "free_dimension_overrides": {"batch_size": 2}}, "wasm": None},
    }
    assert written(tmp_path, given=given) == {
        "device": "webgpu",
        "free_dimension_overrides": {"batch_size": 1},
        "device_config": {"webgpu": {"free_dimension_overrides": {"batch_size": 2}}, "wasm": None},
        "dtype": "q4",
        "use_external_data_format": True,
        "kv_cache_dtype": HALF,
    }
    odd: Any
    for odd in (None, [], "q4", {"device_config": 1}):
        assert written(tmp_path, given=odd)["dtype"] == "q4"


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_transformers_reads_the_same_config(tmp_path: Path, family: str) -> None:
    values = tiny.config(family) | {KEY: {"device": "webgpu"}}
    plain = tiny.write(tmp_path / "source", values)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text(config_text(plain, "text-generation", "int4", "float32"))
    theirs, ours = (transformers.AutoConfig.from_pretrained(tmp_path / name) for name in ("source", "out"))
    assert type(theirs) is type(ours)
    found, expected = ours.to_dict(), theirs.to_dict()
    assert found.pop(KEY)["dtype"] == "q4"
    for name in (KEY, "_name_or_path"):
        expected.pop(name)
    found.pop("_name_or_path")
    assert found == expected


def test_a_head_has_no_cache(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    task: Task = "question-answering"
    assert json.loads(config_text(tmp_path, task, "fp16", "float16")) == {
        KEY: {"dtype": "fp16", "use_external_data_format": True}
    }
