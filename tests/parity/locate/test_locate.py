"""Findings: none in a sound artifact, the place and the cause in one that is not."""

import re
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from intaglio.artifact import read_manifest
from intaglio.exporter import QuantizeOptions, export
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.layerwise import Layerwise
from intaglio.parity.locate import locate
from intaglio.parity.locate.judgement import ranges, together
from intaglio.parity.report.result import Finding, TensorError
from intaglio.tests import tiny

from ..artifacts import Base, Pair, Shelf
from ..faults.edits import attention as plants_attention
from ..faults.edits import heads as plants_heads
from ..faults.edits import layers as plants_layers
from ..faults.edits import weights as plants_weights
from ..faults.edits.attention import Plant
from ..faults.surgery import Surgery

TOKENS = torch.randint(3, 288, (1, 40), generator=torch.Generator().manual_seed(0))


def located(pair: Pair, **options: object) -> tuple[Finding, ...]:
    manifest = read_manifest(pair.artifact)
    return locate(pair.artifact, manifest, Layerwise(Checkpoint(pair.checkpoint)), TOKENS, threads=1, **options)  # type: ignore[arg-type]


def planted(shelf: Shelf, folder: Path, base: Base, plant: Plant) -> tuple[Finding, ...]:
    pair = shelf.copy(base, folder / "artifact")
    with Surgery(pair.artifact) as surgery:
        plant(surgery)
    return located(pair)


SOUND = [
    *(Base(family, target=target) for family in ("qwen2", "exaone4") for target in ("ort", "standard")),
    Base("qwen2", "text-classification"),
    Base("exaone4", "token-classification", target="standard"),
    Base("exaone4", "question-answering"),
    Base("qwen2", "feature-extraction"),
    Base("exaone4", precision="fp16"),
    Base("qwen2", precision="int4", target="standard", options={"method": "rtn"}, trained="tiny-qwen2"),
]
FOLDED = [
    Base("exaone4", precision="int4", options={"method": "awq", "windows": 1}, trained="tiny-exaone4"),
    Base("qwen2", precision="int4", options={"method": "awq", "windows": 1}, trained="tiny-qwen2"),
    Base("qwen2", precision="int8", options={"method": "smoothquant", "windows": 1}, trained="tiny-qwen2"),
]


def named(base: Base) -> str:
    return f"{base.family}-{base.task}-{base.precision}-{base.target}"


@pytest.mark.parametrize("base", SOUND, ids=named)
def test_sound_artifacts_have_no_finding(shelf: Shelf, base: Base) -> None:
    assert located(shelf.pair(base)) == ()


@pytest.mark.slow
@pytest.mark.parametrize("base", FOLDED, ids=named)
def test_folded_scales_are_no_error(shelf: Shelf, base: Base) -> None:
    """Of such an artifact, norms, values and up projections compute other numbers than the source on purpose."""
    assert located(shelf.pair(base)) == ()


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_outliers_are_no_alarm(tmp_path: Path, precision: str) -> None:
    """Trained models have a few hidden channels, and biases of keys, a hundred times as large as the others."""
    values = tiny.config("qwen2")
    tensors = tiny.weights(values)
    for name, tensor in tensors.items():
        if name.endswith("embed_tokens.weight"):
            tensor[:, [3, 17]] *= 300
        if name.endswith("k_proj.bias"):
            tensor[::5] *= 40
        if name.endswith("down_proj.weight"):
            tensor[3] *= 30
    source = tiny.write(tmp_path / "source", values, tensors=tensors)
    options = QuantizeOptions(method="rtn", block_size=32) if precision.startswith("int") else None
    export(source, tmp_path / "artifact", precision=precision, options=options)  # type: ignore[arg-type]
    assert located(Pair(tmp_path / "artifact", source)) == ()


def test_the_layer_the_operator_and_the_figures(shelf: Shelf, tmp_path: Path) -> None:
    (finding,) = planted(shelf, tmp_path, Base("exaone4"), plants_attention.window(7, 1))
    assert finding.module == "model.layers.1.self_attn"
    assert finding.operator == "model.layers.1.self_attn/GroupQueryAttention"
    assert finding.cause == "attends to 7 tokens, config.json's sliding_window is 6"
    assert finding.verdict == "broken"
    assert 0.01 < finding.error < 2
    assert finding.budget < 1e-4


def test_one_mistake_in_many_layers_is_one_finding(shelf: Shelf, tmp_path: Path) -> None:
    (finding,) = planted(shelf, tmp_path, Base("exaone4"), plants_attention.window(5))
    assert finding.module == "model.layers.0.self_attn"
    assert finding.cause == "attends to 5 tokens, config.json's sliding_window is 6; so in layers 1, 2"


@pytest.mark.parametrize(
    ("base", "plant", "module", "cause"),
    [
        (
            Base("exaone4"),
            plants_attention.rotate(3),
            "model.layers.3.self_attn",
            r"RoPE rotates this layer; layer 3 is global and EXAONE 4.0 has none there",
        ),
        (
            Base("qwen2"),
            plants_attention.short_at_chunks,
            "model.layers.0.self_attn",
            r"with several new tokens behind a cache: the new tokens take the place of the last cached one.*s 1 to 3",
        ),
        (
            Base("exaone4", target="standard"),
            plants_attention.last_cached_unseen,
            "model.layers.0.self_attn",
            r"with one new token behind a cache: the last cached token is not seen; so in layers 1 to 3",
        ),
        (
            Base("qwen2"),
            plants_attention.mask_ignored,
            "model.layers.0.self_attn",
            r"with one new token in each of two rows of different length: the attention mask is ignored",
        ),
        (
            Base("exaone4"),
            plants_attention.cache_halves_exchanged(2),
            "model.layers.2.self_attn",
            r"the cache has keys and values exchanged",
        ),
        (
            Base("exaone4"),
            plants_layers.norm_skipped("model.layers.2.self_attn.q_norm"),
            "model.layers.2.self_attn.q_norm",
            r"the norm is skipped: no node of the graph belongs to it",
        ),
        (
            Base("exaone4"),
            plants_layers.norm_before(1),
            "model.layers.1.post_attention_layernorm",
            r"the norm stands before attention \(pre-norm\), EXAONE 4.0 has it behind it \(post-norm\)",
        ),
        (
            Base("exaone4"),
            plants_layers.residual_left_out(2),
            "model.layers.2",
            r"the residual is left out: no node of the graph belongs to it",
        ),
        (
            Base("qwen2"),
            plants_layers.residual_behind_norm(1),
            "model.layers.1",
            r"the residual is post_attention_layernorm's output in place of the sum behind attention",
        ),
        (
            Base("qwen2"),
            plants_layers.bias_dropped("model.layers.1.self_attn.qkv_proj"),
            "model.layers.1.self_attn.q_proj",
            r"its bias is missing or zero",
        ),
        (
            Base("exaone4"),
            plants_layers.tied,
            "lm_head",
            r"lm_head is the embedding, and config.json has tie_word_embeddings = false",
        ),
        (
            Base("qwen2", "text-classification"),
            plants_heads.pools_the_padding,
            "score",
            r"with a batch padded on the right: the score is of the last position, be it padding",
        ),
        (
            Base("exaone4", "question-answering"),
            plants_heads.start_and_end_exchanged,
            "qa_outputs",
            r"start and end are exchanged",
        ),
        (
            Base("qwen2", "text-classification"),
            plants_heads.labels_in_another_order,
            "score",
            r"the manifest's labels are good, fair, bad, config.json's id2label has bad, fair, good",
        ),
        (
            Base("qwen2"),
            plants_weights.zeroed("model.layers.2.mlp.down_proj.weight"),
            "model.layers.2.mlp.down_proj",
            r"its weight is zero",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("model") else None,
)
def test_planted(shelf: Shelf, tmp_path: Path, base: Base, plant: Plant, module: str, cause: str) -> None:
    findings = planted(shelf, tmp_path, base, plant)
    assert [finding for finding in findings if finding.module == module and re.match(cause, finding.cause)], findings
    assert {finding.verdict for finding in findings} == {"broken"}


def test_another_epsilon_is_drift_of_its_size(shelf: Shelf, tmp_path: Path) -> None:
    findings = planted(shelf, tmp_path, Base("qwen2"), plants_layers.epsilon(1e-5, "model.layers.0.input_layernorm"))
    (finding,) = findings
    assert finding.module == "model.layers.0.input_layernorm"
    assert finding.cause == "its epsilon is 1e-05, config.json's rms_norm_eps is 1e-06"
    assert finding.verdict == "drifted"
    assert 1e-4 < finding.error < 1e-3


def test_beyond_the_text(shelf: Shelf, tmp_path: Path) -> None:
    """The text has 40 tokens, the table is wrong from position 64 on."""
    findings = planted(shelf, tmp_path, Base("qwen2"), plants_attention.short_table)
    assert findings[0].module == "model.layers.0.self_attn"
    assert findings[0].cause.startswith("with 128 tokens: ")
    assert "RoPE" in findings[0].cause


def test_a_layer_that_does_not_run(shelf: Shelf, tmp_path: Path) -> None:
    def plant(s: Surgery) -> None:
        product = s.node("model.layers.1.self_attn.o_proj/MatMul").outputs[0]
        bent = s.insert("Reshape", [product, s.constant([7, 7])], "model.layers.1.self_attn.o_proj")
        s.reroute(product, bent)

    findings = planted(shelf, tmp_path, Base("exaone4"), plant)
    (finding,) = [finding for finding in findings if finding.module == "model.layers.1"]
    assert finding.cause.startswith("the layer by itself does not run: ")
    assert finding.verdict == "broken"


def test_nothing_that_explains_it(shelf: Shelf, tmp_path: Path) -> None:
    def plant(s: Surgery) -> None:
        (node,) = s.attention(2)
        node.attributes["softcap"] = ir.AttrFloat32("softcap", 0.5)

    (finding,) = planted(shelf, tmp_path, Base("exaone4"), plant)
    assert re.match(
        r"the attention operator differs by [\d.]+ of its size: none of the usual mistakes explains it", finding.cause
    )


def test_faults_of_the_audit_become_findings(shelf: Shelf) -> None:
    fault = "one block has the wrong sign"
    weight = TensorError(
        "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.up_proj", "fp32", *[None] * 3, 1, 0.01
    )
    table = TensorError("model.rotary_emb.cos", "model.rotary_emb", "fp32", *[None] * 3, 1, 0.5)
    tensors = [replace(weight, fault=fault), replace(table, fault="theta is another"), replace(weight, name="other")]
    first, second = located(shelf.pair(Base("qwen2")), tensors=tensors)
    assert (first.module, first.cause) == ("model.rotary_emb", "model.rotary_emb.cos: theta is another")
    assert (second.module, second.cause) == (weight.module, f"{weight.name}: {fault}")
    assert second.operator == "model.layers.1.mlp.up_proj/MatMul"
    assert second.error < second.budget


def test_a_budget_of_ones_own(shelf: Shelf) -> None:
    findings = located(shelf.pair(Base("qwen2")), budget=1e-9)
    assert findings
    assert all(1e-9 < finding.error < 1e-5 for finding in findings)


def test_progress_and_a_precision_that_the_cpu_lacks(shelf: Shelf) -> None:
    pair = shelf.pair(Base("qwen2"))
    heard: list[tuple[int, int]] = []
    located(pair, advance=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    manifest = read_manifest(pair.artifact)
    manifest = replace(manifest, model=replace(manifest.model, cache_dtype="bfloat16"))
    assert locate(pair.artifact, manifest, Layerwise(Checkpoint(pair.checkpoint)), TOKENS) == ()


def test_very_short_texts(shelf: Shelf) -> None:
    for size in (1, 2, 3, 5, 10):
        for base in (Base("qwen2"), Base("exaone4", "token-classification", target="standard")):
            pair = shelf.pair(base)
            stream = Layerwise(Checkpoint(pair.checkpoint))
            assert locate(pair.artifact, read_manifest(pair.artifact), stream, TOKENS[:, :size], threads=1) == ()


def test_ranges_of_layers() -> None:
    assert ranges([3]) == "3"
    assert ranges([1, 2]) == "1, 2"
    assert ranges([1, 2, 3, 5, 7, 8]) == "1 to 3, 5, 7, 8"


def test_different_causes_stay_apart() -> None:
    one = Finding("model.layers.0.mlp.up_proj", None, 1.0, 0.1, "its weight is that of model.layers.1.mlp.up_proj")
    other = Finding("model.layers.1.mlp.up_proj", None, 1.0, 0.1, "its weight is that of model.layers.0.mlp.up_proj")
    assert together([one, other]) == (one, other)
