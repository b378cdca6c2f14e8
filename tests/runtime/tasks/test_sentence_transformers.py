"""Folders of sentence-transformers, against a reference in torch that follows that library's definitions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.errors import ArtifactError, CheckpointError, IntaglioError, PromptError, UnsupportedError, UsageError
from intaglio.exporter import export
from intaglio.exporter.sentence_transformers import SentenceTransformer, read_sentence_transformer
from intaglio.files.embedding import Embedding, Step, read_embedding
from intaglio.runtime import Embedder, load
from intaglio.tests import tiny
from intaglio.tests.runtime import fakes
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

HIDDEN = fakes.HIDDEN
TABLE = np.random.default_rng(0).normal(size=(fakes.VOCAB, HIDDEN)).astype(np.float32)
TEXTS = ["The stone is in the seal.", "a tower", "Where is it? ÉCOLE", "the same impression every time"]
TORCH = "torch.nn.modules"
PROMPTS = {"query": "question: ", "title": "the stone "}
ACTIVATIONS = ["activation.Tanh", "linear.Identity", "activation.ReLU", "activation.GELU", "activation.SiLU"]


def sentence_folder(
    folder: Path, pooling: dict[str, Any], layers: Sequence[dict[str, Any] | None], **files: Any
) -> Path:
    """Write the files beside a model: Pooling, and for each layer Dense with this config, or Normalize for None."""
    folder.mkdir(exist_ok=True)
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]

    def add(kind: str, config: dict[str, Any]) -> Path:
        place = folder / f"{len(modules)}_{kind}"
        place.mkdir()
        (place / "config.json").write_text(json.dumps(config))
        modules.append({"type": f"sentence_transformers.models.{kind}", "path": place.name})
        return place

    add("Pooling", pooling)
    for config in layers:
        if config is None:
            add("Normalize", {})
            continue
        place = add("Dense", config)
        out, width = config["out_features"], config["in_features"]
        tensors = {"linear.weight": torch.randn(out, width) / 4, "linear.bias": torch.randn(out)}
        if config.get("bias") is False:
            del tensors["linear.bias"]
        if config.get("use_residual") and out != width:
            tensors["residual.weight"] = torch.randn(out, width) / 4
        save_file(tensors, place / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(modules))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def artifact(folder: Path, source: Path, **options: Any) -> Embedder:
    """Return an embedder that looks its states up in TABLE, with the modules of a folder."""
    made = fakes.head(folder, "feature-extraction", TABLE, **options)
    SentenceTransformer(source, HIDDEN).write(made)
    return load(made, task="feature-extraction")


def pooled(states: Tensor, mode: str, prompt: int) -> Tensor:
    """Pool [S, D] as the library's Pooling does with a mask [S] that has zeros for the prompt."""
    mask = torch.ones(len(states))
    mask[:prompt] = 0
    if mode == "cls":
        return states[int(mask.argmax())]
    if mode == "max":
        return states.masked_fill(mask[:, None] == 0, -torch.inf).amax(0)
    if mode == "lasttoken":
        return states[-1] * mask[-1]
    weights = mask * torch.arange(1, len(states) + 1) if mode == "weightedmean" else mask
    total, count = (states * weights[:, None]).sum(0), weights.sum().clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)


def reference(source: Path, states: Tensor, modes: Sequence[str], prompt: int) -> Tensor:
    x = torch.cat([pooled(states, mode, prompt) for mode in modes])
    for module in json.loads((source / "modules.json").read_text())[2:]:
        if module["type"].endswith("Normalize"):
            x = torch.nn.functional.normalize(x, dim=-1)
            continue
        config = json.loads((source / module["path"] / "config.json").read_text())
        tensors = load_file(source / module["path"] / "model.safetensors")
        name = config.get("activation_function", f"{TORCH}.activation.Tanh").rpartition(".")[2]
        y = getattr(nn, name)()(torch.nn.functional.linear(x, tensors["linear.weight"], tensors.get("linear.bias")))
        if config.get("use_residual"):
            y = y + (torch.nn.functional.linear(x, tensors["residual.weight"]) if "residual.weight" in tensors else x)
        x = y
    return x


FLAGS = {"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False}
CASES: list[tuple[dict[str, Any], list[str]]] = [
    *(({"pooling_mode": mode}, [mode]) for mode in ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean")),
    ({"pooling_mode": "lasttoken", "embedding_dimension": HIDDEN}, ["lasttoken"]),
    ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, ["lasttoken"]),
    ({**FLAGS, "pooling_mode_cls_token": True, "word_embedding_dimension": HIDDEN}, ["cls", "mean"]),
    ({"pooling_mode": ["lasttoken", "max"]}, ["lasttoken", "max"]),
    ({}, ["mean"]),
]


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize(("pooling", "modes"), CASES)
def test_pooling_and_prompts(tmp_path: Path, pooling: dict[str, Any], modes: list[str], include_prompt: bool) -> None:
    config = {"prompts": PROMPTS, "default_prompt_name": "title"}
    pooling = pooling | {"include_prompt": include_prompt}
    source = sentence_folder(tmp_path / "st", pooling, [], config_sentence_transformers=config)
    model = artifact(tmp_path / "out", source)
    calls: list[tuple[dict[str, Any], str]] = [
        ({}, "the stone "),
        ({"prompt_name": "query"}, "question: "),
        ({"prompt": "seal "}, "seal "),
        ({"prompt_name": "document"}, ""),
    ]
    for options, prompt in calls:
        length = 0 if include_prompt else len(model.tokenizer.encode(prompt))
        states = [torch.tensor(TABLE[model.tokenizer.encode(prompt + text)]) for text in TEXTS]
        expected = torch.stack([reference(source, one, modes, length) for one in states]).numpy()
        found = model(TEXTS, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        lengths = np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(model(TEXTS, normalize=True, **options), expected / lengths, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
def test_dense_layers(tmp_path: Path, activation: str, residual: bool) -> None:
    torch.manual_seed(0)
    first = {"in_features": HIDDEN, "out_features": 12, "activation_function": f"{TORCH}.{activation}"}
    second = {"in_features": 12, "out_features": 12, "bias": False, "use_residual": residual}
    source = sentence_folder(
        tmp_path / "st", {"pooling_mode": "mean"}, [first | {"use_residual": residual}, None, second, None]
    )
    model = artifact(tmp_path / "out", source)
    states = [torch.tensor(TABLE[model.tokenizer.encode(text)]) for text in TEXTS]
    expected = torch.stack([reference(source, one, ["mean"], 0) for one in states]).numpy()
    np.testing.assert_allclose(model(TEXTS), expected, rtol=1e-4, atol=1e-5)
    assert model([]).shape == (0, 12)
    loose = model(TEXTS, normalize=False)
    np.testing.assert_allclose(loose / np.linalg.norm(loose, axis=1, keepdims=True), expected, rtol=1e-4, atol=1e-5)


def test_the_length_and_the_case_of_a_text(tmp_path: Path) -> None:
    settings = {"max_seq_length": 8, "do_lower_case": True}
    source = sentence_folder(tmp_path / "st", {"pooling_mode": "mean"}, [], sentence_bert_config=settings)
    model = artifact(tmp_path / "out", source)
    np.testing.assert_array_equal(model("THE Stone"), model("the stone"))
    with pytest.raises(PromptError, match=r"the text has \d+ tokens, the model reads 8; shorten it"):
        model("the seal then presses the same impression")
    states = TABLE[model.tokenizer.encode("the seal then presses the same impression")[:8]]
    found = model("the seal then presses the same impression", truncation=True)[0]
    np.testing.assert_allclose(found, states.mean(axis=0), rtol=1e-5)


def test_an_export_takes_the_modules_over(tmp_path: Path) -> None:
    """An export, and one of that export, embed as transformers' model with the reference's layers."""
    from transformers import AutoModel

    config = tiny.config("qwen2", "feature-extraction")
    width = config["hidden_size"]
    source = tiny.write(tmp_path / "source", config, tokenizer=True)
    dense = {"in_features": width, "out_features": 10, "activation_function": f"{TORCH}.activation.Tanh"}
    prompts = {"prompts": PROMPTS, "default_prompt_name": None}
    sentence_folder(source, {"pooling_mode": "lasttoken"}, [dense, None], config_sentence_transformers=prompts)
    weights = source / "2_Dense" / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(weights).items()}, weights)
    manifest = export(source, tmp_path / "out")
    assert {"embedding.json", "embedding.safetensors"} <= set(manifest.files)
    model = load(tmp_path / "out", task="feature-extraction")
    theirs = AutoModel.from_pretrained(source, dtype=torch.float32).eval()
    for text in TEXTS:
        ids = torch.tensor([model.tokenizer.encode(f"question: {text}")])
        with torch.no_grad():
            states = theirs(input_ids=ids).last_hidden_state[0]
        tensors = {name: tensor.float() for name, tensor in load_file(weights).items()}
        linear = torch.nn.functional.linear(states[-1], tensors["linear.weight"], tensors["linear.bias"])
        expected = torch.nn.functional.normalize(linear.tanh(), dim=-1).numpy()
        np.testing.assert_allclose(model(text, prompt_name="query")[0], expected, rtol=1e-3, atol=1e-4)
    again = export(tmp_path / "out", tmp_path / "again")
    assert again.files["embedding.safetensors"] == manifest.files["embedding.safetensors"]
    assert read_embedding(tmp_path / "again") == model.embedding


def test_without_modules_the_last_token_is_scaled(tmp_path: Path) -> None:
    model = load(fakes.head(tmp_path / "out", "feature-extraction", TABLE), task="feature-extraction")
    assert model.embedding == Embedding(("last",), True, (Step("normalize"),))
    with pytest.raises(UsageError, match="there is no prompt named 'query'; the model's prompts are: none"):
        model("a", prompt_name="query")
    np.testing.assert_array_equal(model("a", prompt="the "), model("the a"))


def test_prompts_that_cannot_be_taken(tmp_path: Path) -> None:
    config = {"prompts": PROMPTS, "default_prompt_name": "query"}
    pooling = {"pooling_mode": "max", "include_prompt": False}
    model = artifact(
        tmp_path / "out", sentence_folder(tmp_path / "st", pooling, [], config_sentence_transformers=config)
    )
    with pytest.raises(UsageError, match="no prompt named 'q'; the model's prompts are: 'query', 'document', 'title'"):
        model("a", prompt_name="q")
    with pytest.raises(UsageError, match="prompt and prompt_name exclude each other"):
        model("a", prompt="a", prompt_name="query")
    with pytest.raises(PromptError, match="text 0 has no tokens beside the prompt to take the maximum of"):
        model("")


def module(kind: str, path: str = "") -> dict[str, str]:
    return {"type": kind, "path": path}


TRANSFORMER, POOLING, DENSE = (
    module(f"sentence_transformers.models.{kind}", path)
    for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
)


@pytest.mark.parametrize(
    ("modules", "error", "message"),
    [
        ([TRANSFORMER], UnsupportedError, "there is no module Pooling"),
        ([TRANSFORMER, POOLING, POOLING], UnsupportedError, "module 2 is of the type 'sentence_transformers.models.P"),
        ([TRANSFORMER, module("sentence_transformers.models.LSTM")], UnsupportedError, r"models\.LSTM', which is not"),
        ([TRANSFORMER, POOLING, module("custom.Pooling")], UnsupportedError, "type 'custom.Pooling', which is not"),
        ([TRANSFORMER | {"path": "0_Transformer"}], UnsupportedError, "the model is in the folder 0_Transformer"),
        ([TRANSFORMER, POOLING | {"path": "../x"}], CheckpointError, r"module 1: path is '\.\./x', expected the name"),
        ({"a": 1}, CheckpointError, r"modules\.json: expected a list of modules; fetch the checkpoint again"),
    ],
)
def test_modules_that_cannot_be_computed_are_refused_by_name(
    tmp_path: Path, modules: Any, error: type[IntaglioError], message: str
) -> None:
    source = sentence_folder(tmp_path, {"pooling_mode": "mean"}, [])
    (source / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(error, match=message):
        read_sentence_transformer(source, HIDDEN)


@pytest.mark.parametrize(
    ("file", "change", "error", "message"),
    [
        (
            "1_Pooling/config.json",
            {"pooling_mode": "sum"},
            CheckpointError,
            "pooling_mode is 'sum', expected one of cls",
        ),
        ("1_Pooling/config.json", {"embedding_dimension": 7}, CheckpointError, "is 7, expected 32, the hidden_size"),
        ("2_Dense/config.json", {"activation_function": "my.Swish"}, UnsupportedError, "is 'my.Swish', supported are"),
        (
            "2_Dense/config.json",
            {"out_features": 9},
            CheckpointError,
            r"linear.weight is \(12, 32\), expected the shape",
        ),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, UnsupportedError, "only sentence_embedding"),
        (
            "sentence_bert_config.json",
            {"max_seq_length": "a"},
            CheckpointError,
            "max_seq_length is 'a', expected a whole",
        ),
        (
            "sentence_bert_config.json",
            {"transformer_task": "fill-mask"},
            UnsupportedError,
            "is 'fill-mask', not feature",
        ),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "x"},
            CheckpointError,
            "expected a name of prompts",
        ),
    ],
)
def test_options_that_cannot_be_computed_are_refused_by_name(
    tmp_path: Path, file: str, change: dict[str, Any], error: type[IntaglioError], message: str
) -> None:
    dense = {"in_features": HIDDEN, "out_features": 12}
    source = sentence_folder(tmp_path, {"pooling_mode": "mean"}, [dense])
    path = source / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | change))
    with pytest.raises(error, match=message):
        SentenceTransformer(source, HIDDEN)


def test_a_pickled_layer_is_not_read(tmp_path: Path) -> None:
    source = sentence_folder(tmp_path, {"pooling_mode": "mean"}, [{"in_features": HIDDEN, "out_features": 12}])
    weights = source / "2_Dense" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(UnsupportedError, match=r"2_Dense/pytorch_model\.bin is a pickle"):
        SentenceTransformer(source, HIDDEN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": ["sum"]}, r"pooling is \['sum'\], expected a list of last, mean"),
        ({"steps": [{"kind": "lstm"}]}, r"steps\[0\]: kind is 'lstm', expected normalize or dense"),
        ({"steps": [{"kind": "dense"}]}, "embedding.safetensors cannot be read"),
        ({"default_prompt_name": "x"}, "default_prompt_name is 'x', expected a name of prompts"),
    ],
)
def test_a_damaged_artifact_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    files = {"embedding.json": json.dumps({"pooling": ["mean"]} | change)}
    folder = fakes.head(tmp_path / "out", "feature-extraction", TABLE, files=files)
    with pytest.raises(ArtifactError, match=f"{message}.*; export the model again"):
        load(folder, task="feature-extraction")
