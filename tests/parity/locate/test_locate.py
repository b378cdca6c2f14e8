"""A faithful artifact has no findings; a faulty one has a finding with the module and the cause."""

import re
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from intaglio.artifact import read_manifest
from intaglio.exporter import QuantizeOptions, export
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.loading.layerwise import Layerwise
from intaglio.parity.locate import locate
from intaglio.parity.locate.findings import format_ranges, merge_layers
from intaglio.parity.report.result import Finding, TensorError
from intaglio.tests import tiny

from ..artifacts import Base, Pair, Shelf
from ..faults.artifact_editor import ArtifactEditor
from ..faults.edits import attention, heads, layers, weights
from ..faults.edits.attention import Edit

TOKENS = torch.randint(3, 288, (1, 40), generator=torch.Generator().manual_seed(0))


def located(pair: Pair, **options: object) -> tuple[Finding, ...]:
    manifest = read_manifest(pair.artifact)
    return locate(pair.artifact, manifest, Layerwise(Checkpoint(pair.checkpoint)), TOKENS, threads=1, **options)  # type: ignore[arg-type]


def findings_after(shelf: Shelf, folder: Path, base: Base, edit: Edit) -> tuple[Finding, ...]:
    pair = shelf.copy(base, folder / "artifact")
    with ArtifactEditor(pair.artifact) as editor:
        edit(editor)
    return located(pair)


FAITHFUL = [
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


@pytest.mark.parametrize("base", FAITHFUL, ids=named)
def test_faithful_artifacts_have_no_findings(shelf: Shelf, base: Base) -> None:
    assert located(shelf.pair(base)) == ()


@pytest.mark.slow
@pytest.mark.parametrize("base", FOLDED, ids=named)
def test_folded_scales_are_not_errors(shelf: Shelf, base: Base) -> None:
    """The activations of norms, v_proj and up_proj are scaled in such an artifact, which the next weight undoes."""
    assert located(shelf.pair(base)) == ()


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_outliers_are_not_findings(tmp_path: Path, precision: str) -> None:
    """Trained models have a few hidden channels and biases of keys that are a hundred times as large as the others."""
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
    (finding,) = findings_after(shelf, tmp_path, Base("exaone4"), attention.window(7, 1))
    assert finding.module == "model.layers.1.self_attn"
    assert finding.operator == "model.layers.1.self_attn/GroupQueryAttention"
    assert finding.cause == "attends to 7 tokens, config.json's sliding_window is 6"
    assert finding.verdict == "broken"
    assert 0.01 < finding.error < 2
    assert finding.budget < 1e-4


def test_one_mistake_in_many_layers_is_one_finding(shelf: Shelf, tmp_path: Path) -> None:
    (finding,) = findings_after(shelf, tmp_path, Base("exaone4"), attention.window(5))
    assert finding.module == "model.layers.0.self_attn"
    assert finding.cause == "attends to 5 tokens, config.json's sliding_window is 6; also in layers 1, 2"


@pytest.mark.parametrize(
    ("base", "edit", "module", "cause"),
    [
        (
            Base("exaone4"),
            attention.rotate(3),
            "model.layers.3.self_attn",
            r"RoPE is applied to this layer, layer 3 is global and EXAONE 4.0 has none there",
        ),
        (
            Base("qwen2"),
            attention.short_at_chunks,
            "model.layers.0.self_attn",
            r"with several new tokens after a cache: the new tokens overwrite the last cached one.*layers 1 to 3",
        ),
        (
            Base("exaone4", target="standard"),
            attention.last_cached_hidden,
            "model.layers.0.self_attn",
            r"with one new token after a cache: the last cached token is not attended to; also in layers 1 to 3",
        ),
        (
            Base("qwen2"),
            attention.mask_ignored,
            "model.layers.0.self_attn",
            r"with one new token in each of two sequences of different length: the attention mask is ignored",
        ),
        (
            Base("exaone4"),
            attention.keys_and_values_swapped(2),
            "model.layers.2.self_attn",
            r"keys and values are swapped in the cache",
        ),
        (
            Base("exaone4"),
            layers.norm_skipped("model.layers.2.self_attn.q_norm"),
            "model.layers.2.self_attn.q_norm",
            r"the norm is skipped: the graph has no node for it",
        ),
        (
            Base("exaone4"),
            layers.norm_before(1),
            "model.layers.1.post_attention_layernorm",
            r"the norm is applied before attention \(pre-norm\), EXAONE 4.0 applies it after \(post-norm\)",
        ),
        (
            Base("exaone4"),
            layers.residual_left_out(2),
            "model.layers.2",
            r"the residual is left out: the graph has no node for it",
        ),
        (
            Base("qwen2"),
            layers.residual_after_norm(1),
            "model.layers.1",
            r"the residual is post_attention_layernorm's output instead of the residual sum after attention",
        ),
        (
            Base("qwen2"),
            layers.bias_dropped("model.layers.1.self_attn.qkv_proj"),
            "model.layers.1.self_attn.q_proj",
            r"its bias is missing or zero",
        ),
        (
            Base("exaone4"),
            layers.tied,
            "lm_head",
            r"lm_head is the embedding, config.json has tie_word_embeddings = false",
        ),
        (
            Base("qwen2", "text-classification"),
            heads.pools_the_padding,
            "score",
            r"with a batch padded on the right: the score is computed from the last position, even where it is padding",
        ),
        (
            Base("exaone4", "question-answering"),
            heads.start_and_end_swapped,
            "qa_outputs",
            r"start and end are swapped",
        ),
        (
            Base("qwen2", "text-classification"),
            heads.labels_in_another_order,
            "score",
            r"the manifest's labels are good, fair, bad, config.json's id2label has bad, fair, good",
        ),
        (
            Base("qwen2"),
            weights.zeroed("model.layers.2.mlp.down_proj.weight"),
            "model.layers.2.mlp.down_proj",
            r"its weight is zero",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("model") else None,
)
def test_a_fault_is_found(shelf: Shelf, tmp_path: Path, base: Base, edit: Edit, module: str, cause: str) -> None:
    findings = findings_after(shelf, tmp_path, base, edit)
    assert [finding for finding in findings if finding.module == module and re.match(cause, finding.cause)], findings
    assert {finding.verdict for finding in findings} == {"broken"}


def test_another_epsilon_is_drift(shelf: Shelf, tmp_path: Path) -> None:
    findings = findings_after(shelf, tmp_path, Base("qwen2"), layers.epsilon(1e-5, "model.layers.0.input_layernorm"))
    (finding,) = findings
    assert finding.module == "model.layers.0.input_layernorm"
    assert finding.cause == "its epsilon is 1e-05, config.json's rms_norm_eps is 1e-06"
    assert finding.verdict == "drifted"
    assert 1e-4 < finding.error < 1e-3


def test_beyond_the_text(shelf: Shelf, tmp_path: Path) -> None:
    """The text has 40 tokens; the table is wrong from position 64 on."""
    findings = findings_after(shelf, tmp_path, Base("qwen2"), attention.short_table)
    assert findings[0].module == "model.layers.0.self_attn"
    assert findings[0].cause.startswith("with 128 tokens: ")
    assert "RoPE" in findings[0].cause


def test_a_layer_that_does_not_run(shelf: Shelf, tmp_path: Path) -> None:
    def edit(editor: ArtifactEditor) -> None:
        product = editor.node("model.layers.1.self_attn.o_proj/MatMul").outputs[0]
        bent = editor.insert("Reshape", [product, editor.constant([7, 7])], "model.layers.1.self_attn.o_proj")
        editor.reroute(product, bent)

    findings = findings_after(shelf, tmp_path, Base("exaone4"), edit)
    (finding,) = [finding for finding in findings if finding.module == "model.layers.1"]
    assert finding.cause.startswith("the layer does not run on its own: ")
    assert finding.verdict == "broken"


def test_an_unexplained_error(shelf: Shelf, tmp_path: Path) -> None:
    def edit(editor: ArtifactEditor) -> None:
        (node,) = editor.attention(2)
        node.attributes["softcap"] = ir.AttrFloat32("softcap", 0.5)

    (finding,) = findings_after(shelf, tmp_path, Base("exaone4"), edit)
    assert re.match(
        r"the attention operator has a relative error of [\d.]+: no known mistake explains it", finding.cause
    )


def test_faults_of_the_audit_become_findings(shelf: Shelf) -> None:
    fault = "one block has the wrong sign"
    module = "model.layers.1.mlp.up_proj"
    weight = TensorError(f"{module}.weight", module, "fp32", None, None, None, elements=1, error=0.01)
    table = TensorError("model.rotary_emb.cos", "model.rotary_emb", "fp32", None, None, None, elements=1, error=0.5)
    tensors = [replace(weight, fault=fault), replace(table, fault="theta is another"), replace(weight, name="other")]
    first, second = located(shelf.pair(Base("qwen2")), tensors=tensors)
    assert (first.module, first.cause) == ("model.rotary_emb", "model.rotary_emb.cos: theta is another")
    assert (second.module, second.cause) == (weight.module, f"{weight.name}: {fault}")
    assert second.operator == "model.layers.1.mlp.up_proj/MatMul"
    assert second.error < second.budget


def test_a_given_budget(shelf: Shelf) -> None:
    findings = located(shelf.pair(Base("qwen2")), budget=1e-9)
    assert findings
    assert all(1e-9 < finding.error < 1e-5 for finding in findings)


def test_progress_and_a_precision_that_the_cpu_lacks(shelf: Shelf) -> None:
    pair = shelf.pair(Base("qwen2"))
    calls: list[tuple[int, int]] = []
    located(pair, advance=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
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
    assert format_ranges([3]) == "3"
    assert format_ranges([1, 2]) == "1, 2"
    assert format_ranges([1, 2, 3, 5, 7, 8]) == "1 to 3, 5, 7, 8"


def test_different_causes_stay_apart() -> None:
    one = Finding("model.layers.0.mlp.up_proj", None, 1.0, 0.1, "its weight is that of model.layers.1.mlp.up_proj")
    other = Finding("model.layers.1.mlp.up_proj", None, 1.0, 0.1, "its weight is that of model.layers.0.mlp.up_proj")
    assert merge_layers([one, other]) == (one, other)
