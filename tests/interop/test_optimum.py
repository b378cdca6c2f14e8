"""`import intaglio.interop.optimum`: what it changes in optimum's classes, and those classes on artifacts."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from intaglio import QuantizeOptions, load
from intaglio.artifact import Target
from intaglio.contract import MASK_CHECK
from intaglio.errors import DependencyError, UnsupportedError
from intaglio.exporter import export
from intaglio.scripts.interop import environments, table
from intaglio.scripts.interop.checkpoints import CHECKPOINTS

MODULE = "intaglio.interop.optimum"
NAMES = ("optimum", "optimum.onnxruntime", "optimum.onnxruntime.modeling")


class Model:
    """What a class of optimum does on a call."""

    def __call__(self, *, fails: Exception | None = None) -> str:
        if fails is not None:
            raise fails
        return "logits"


class CausalLM(Model):
    """What the class for text generation knows after it was made, of a config and a session."""

    def __init__(self, *, shapes: dict[str, list[Any]]) -> None:
        self.input_shapes, self.input_names = shapes, dict.fromkeys(shapes)
        self.key_value_input_names = [name for name in shapes if name.startswith("past_key_values.")]
        self.num_key_value_heads, self.embed_size_per_head = 6, 21

    def generate(self, *ids: Any, **options: Any) -> dict[str, Any]:
        return options


@pytest.fixture
def optimum(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CausalLM]]:
    """A stand-in of optimum whose classes the module has changed."""
    found = {name: ModuleType(name) for name in NAMES}
    model = type("ORTModel", (Model,), {})
    causal = type("ORTModelForCausalLM", (model, CausalLM), {})
    found["optimum.onnxruntime"].ORTModelForCausalLM = causal  # type: ignore[attr-defined]
    found["optimum.onnxruntime.modeling"].ORTModel = model  # type: ignore[attr-defined]
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    importlib.import_module(MODULE)
    yield causal
    sys.modules.pop(MODULE, None)


SHAPES: dict[str, list[Any]] = {
    "input_ids": ["batch_size", "sequence"],
    "past_key_values.0.key": ["batch_size", 2, "past_sequence", 32],
}


def test_the_cache_has_the_shape_of_the_graph(optimum: type[CausalLM]) -> None:
    model = optimum(shapes=SHAPES)
    assert (model.num_key_value_heads, model.embed_size_per_head) == (2, 32)
    fused = optimum(shapes={"past_key_values.0.key": ["batch_heads", 32, "past"]})
    assert (fused.num_key_value_heads, fused.embed_size_per_head) == (6, 21)
    assert optimum(shapes={"input_ids": ["batch_size", "sequence"]}).num_key_value_heads == 6


def test_generate_leaves_out_what_the_graph_does_not_take(optimum: type[CausalLM]) -> None:
    ones = np.ones((1, 3), np.int64)
    given = {"attention_mask": ones, "token_type_ids": ones, "top_k": 4}
    assert optimum(shapes=SHAPES).generate(**given).keys() == {"attention_mask", "top_k"}
    assert optimum(shapes={**SHAPES, "token_type_ids": []}).generate(**given).keys() == given.keys()


def test_padding_that_would_give_wrong_text_is_refused(optimum: type[CausalLM]) -> None:
    model = optimum(shapes=SHAPES)
    with pytest.raises(UnsupportedError, match=r"^the batch is padded on the right, where generate\(\) would read"):
        model.generate(attention_mask=np.array([[1, 1, 1], [1, 1, 0]]))
    assert "attention_mask" in model.generate(attention_mask=np.array([[1, 1, 1], [0, 1, 1]]))


def test_a_mask_that_the_graph_refuses_gets_a_message(optimum: type[CausalLM]) -> None:
    model = optimum(shapes=SHAPES)
    assert model() == "logits"
    with pytest.raises(UnsupportedError, match="generate text by text, or export with --target standard"):
        model(fails=RuntimeError(f"Non-zero status code returned while running Split node. Name:'{MASK_CHECK}'"))
    with pytest.raises(RuntimeError, match="another"):
        model(fails=RuntimeError("another"))


def test_without_optimum_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(
        DependencyError, match=r"^optimum's classes need the package optimum-onnx, which is not .*'intaglio\["
    ):
        importlib.import_module(MODULE)


def run(code: str, folder: Path) -> list[str]:
    """Run code in the environment of optimum; return the lines that it prints."""
    try:
        python = environments.python_environment("optimum")
    except environments.UnavailableError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [python, "-c", code], cwd=folder, env=environments.variables(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort", "standard"])
def test_the_lines_of_the_page_give_the_same_text(tmp_path: Path, target: Target) -> None:
    (code,) = re.findall(
        r"^```python\n(import intaglio.interop.optimum.*?)^```$", table.PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    out = tmp_path / "out-int4"
    options = QuantizeOptions(method="rtn", block_size=32)
    export(CHECKPOINTS / "tiny-exaone4", out, precision="int4", target=target, options=options)
    with load(out, task="text-generation", kernels="onnxruntime", threads=1) as lm:
        expected = lm.generate("The history of the city", max_new_tokens=16, temperature=0.0).text
    assert "\n".join(run(code, tmp_path)) == "The history of the city" + expected


BATCHES = """
import json
import sys
import intaglio.interop.optimum
from intaglio.errors import UnsupportedError
from optimum.onnxruntime import ORTModelForCausalLM, ORTModelForSequenceClassification
from transformers import AutoTokenizer

def tried(call):
    try:
        return call().tolist()
    except UnsupportedError as error:
        return str(error)

texts = ["The history of the city and of the river", "The ship"]
found = {}
for binds in (False, True):
    model = ORTModelForCausalLM.from_pretrained("text", use_io_binding=binds)
    for side in ("left", "right"):
        inputs = AutoTokenizer.from_pretrained("text", padding_side=side)(texts, return_tensors="pt", padding=True)
        options = {"max_new_tokens": 8, "do_sample": False}
        found[f"text {side} {binds}"] = tried(lambda: model.generate(**inputs, **options)[:, -8:])
model = ORTModelForSequenceClassification.from_pretrained("label")
for side in ("left", "right"):
    inputs = AutoTokenizer.from_pretrained("label", padding_side=side)(texts, return_tensors="pt", padding=True)
    found[f"label {side}"] = tried(lambda: model(**inputs).logits.softmax(-1))
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort", "standard"])
def test_a_batch_is_right_or_refused(tmp_path: Path, target: Target) -> None:
    export(CHECKPOINTS / "tiny-qwen2", tmp_path / "text", target=target)
    export(CHECKPOINTS / "tiny-qwen2-sst2", tmp_path / "label", target=target)
    found = json.loads(run(BATCHES, tmp_path)[-1])
    texts = ["The history of the city and of the river", "The ship"]
    with load(tmp_path / "text", task="text-generation") as lm:
        tokens = [list(one.token_ids) for one in lm.generate(texts, max_new_tokens=8, temperature=0.0)]
    with load(tmp_path / "label", task="text-classification") as classifier:
        scores = [list(one.scores.values()) for one in classifier(texts)]
    for binds in (False, True):
        assert found[f"text right {binds}"].startswith("the batch is padded on the right")
        if target == "standard":
            assert found[f"text left {binds}"] == tokens
        else:
            assert found[f"text left {binds}"].endswith("generate text by text, or export with --target standard")
    np.testing.assert_allclose(found["label right"], scores, rtol=1e-4)
    if target == "standard":
        np.testing.assert_allclose(found["label left"], scores, rtol=1e-4)
    else:
        assert "load the tokenizer with padding_side='right'" in found["label left"]
