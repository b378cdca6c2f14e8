"""The schemes of weights: by task, by ``--keep``, and by the mix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import CheckpointError, UsageError
from intaglio.exporter.quantize.allocation.candidates import Candidate, candidates, kept
from intaglio.exporter.quantize.allocation.mix import (
    BITS_PER_WEIGHT,
    GPTQ_GAIN,
    check_target_size,
    measured_formats,
    mixed,
)
from intaglio.exporter.quantize.allocation.uniform import uniform
from intaglio.exporter.quantize.fit import fit
from intaglio.exporter.quantize.formats.blocks import BlockFormat
from intaglio.exporter.quantize.formats.scheme import Schemes
from intaglio.exporter.quantize.layers.sensitivity import KlEstimates
from intaglio.exporter.quantize.options import QuantizeOptions
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny

PROJECTIONS = [
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
]
Found = Callable[..., list[Candidate]]


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """``found("qwen2", task)`` -> the candidates of a tiny checkpoint of two layers."""

    def make(family: str = "qwen2", task: str = "text-generation", **changes: Any) -> list[Candidate]:
        if family == "exaone4":
            changes |= {"layer_types": ["sliding_attention", "full_attention"]}
        values = tiny.config(family, task, num_hidden_layers=2, **changes)
        checkpoint = Checkpoint(tiny.write(tmp_path / "checkpoint", values))
        return candidates(checkpoint, checkpoint.task)

    return make


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
@pytest.mark.parametrize("task", tiny.SUFFIXES)
def test_the_trunk_is_quantized_and_small_heads_are_not(found: Found, family: str, task: str) -> None:
    prefix = tiny.PREFIXES[task]
    expected = [f"{prefix}embed_tokens.weight"]
    expected += [f"{prefix}layers.{index}.{name}.weight" for index in range(2) for name in PROJECTIONS]
    if task == "text-generation":
        expected.append("lm_head.weight")
    assert [candidate.tensor for candidate in found(family, task)] == expected


def test_a_tied_embedding_is_one_weight_of_two_paths(found: Found) -> None:
    first, *others = found(tie_word_embeddings=True)
    assert first == Candidate(("model.embed_tokens", "lm_head"), "model.embed_tokens.weight", (288, 64), looked_up=True)
    assert first.per_token
    assert not any(candidate.per_token or candidate.looked_up for candidate in others)
    head = found()[-1]
    assert (head.paths, head.per_token, head.looked_up) == (("lm_head",), True, False)


def test_a_damaged_checkpoint_is_named_before_anything_long_begins(tmp_path: Path) -> None:
    values = tiny.config("qwen2", num_hidden_layers=2)
    tensors = tiny.weights(values)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    checkpoint = Checkpoint(tiny.write(tmp_path, values, tensors=tensors))
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        candidates(checkpoint, "text-generation")


def formats(schemes: Schemes) -> dict[str, tuple[int, int, bool, str]]:
    return {
        name.removesuffix(".weight"): (w.format.bits, w.format.block_size, w.format.symmetric, w.method)
        for name, w in schemes.items()
    }


def test_uniform_formats(found: Found) -> None:
    weights = found()
    four = formats(uniform(weights, "int4", QuantizeOptions(), "gptq"))
    assert set(four) == {candidate.tensor.removesuffix(".weight") for candidate in weights}
    # An embedding has no zero points; embedding and LM head are rounded with every method.
    assert four.pop("model.embed_tokens") == (4, 32, True, "rtn")
    assert four.pop("lm_head") == (4, 32, False, "rtn")
    assert set(four.values()) == {(4, 32, False, "gptq")}
    eight = formats(uniform(weights, "int8", QuantizeOptions(block_size=128), "gptq"))
    assert {eight.pop("model.embed_tokens"), eight.pop("lm_head")} == {(8, 128, True, "rtn")}
    assert set(eight.values()) == {(8, 128, True, "gptq")}
    kept = formats(uniform(weights, "int4", QuantizeOptions(keep={"*.v_proj": "int8"}), "gptq"))
    assert {kept[name] for name in kept if name.endswith("v_proj")} == {(8, 32, True, "rtn")}


def test_int8_has_small_blocks_where_they_gain_most(found: Found) -> None:
    weights = found()
    sizes = {name: size for name, (_, size, *_) in formats(uniform(weights, "int8", QuantizeOptions(), "rtn")).items()}
    coarse = {f"model.layers.{index}.mlp.{name}_proj" for index in range(2) for name in ("gate", "up")}
    assert {name for name, size in sizes.items() if size == 32} == coarse
    assert {size for name, size in sizes.items() if name not in coarse} == {16}


def test_keep(found: Found) -> None:
    weights = found()
    options = QuantizeOptions(keep={"*.layers.1.*": "float", "*.v_proj": "int8", "lm_head": "int8"})
    schemes = formats(uniform(weights, "int4", options, "rtn"))
    assert not [name for name in schemes if ".layers.1." in name and "v_proj" not in name]
    assert (
        schemes["model.layers.0.self_attn.v_proj"] == schemes["model.layers.1.self_attn.v_proj"] == (8, 32, True, "rtn")
    )
    assert schemes["lm_head"] == (8, 32, True, "rtn")
    assert schemes["model.layers.0.self_attn.k_proj"] == (4, 32, False, "rtn")


def test_of_two_patterns_that_fit_the_last_counts(found: Found) -> None:
    weights = found()
    one, other = "*.layers.0.*", "*.q_proj"
    name = "model.layers.0.self_attn.q_proj.weight"
    assert kept(weights, {one: "float", other: "int8"})[name] == "int8"
    assert kept(weights, {other: "int8", one: "float"})[name] == "float"


def test_a_tied_embedding_is_kept_by_either_path(found: Found) -> None:
    weights = found(tie_word_embeddings=True)
    for path in ("lm_head", "model.embed_tokens"):
        assert kept(weights, {path: "int8"}) == {"model.embed_tokens.weight": "int8"}


@pytest.mark.parametrize("pattern", ["down_proj", "*.norm", "model.layers.2.*", "LM_HEAD", "score", ""])
def test_a_pattern_that_no_path_fits(found: Found, pattern: str) -> None:
    with pytest.raises(UsageError) as caught:
        kept(found(), {"*.down_proj": "int8", pattern: "float"})
    layer = "model.layers.0."
    assert str(caught.value) == (
        f"--keep {pattern}: no weight that can be quantized has such a path; there are model.embed_tokens, "
        f"{', '.join(layer + name for name in PROJECTIONS)}, lm_head and so on: "
        "give one of them, or a pattern with * such as '*.down_proj'"
    )


def made_up(weights: list[Candidate], options: QuantizeOptions, **kl: float) -> KlEstimates:
    """Return an estimate for every weight, by the last part of its name or 1e-4; larger with larger blocks."""
    measured: KlEstimates = {}
    for tensor, asked in measured_formats(weights, options).items():
        own = kl.get(tensor.split(".")[-2], 1e-4)
        measured[tensor] = {format: own * format.block_size / 32 for format in asked}
    return measured


def mix(weights: list[Candidate], options: QuantizeOptions, **kl: float) -> Schemes:
    return mixed(weights, made_up(weights, options, **kl), options, "gptq")


def bytes_of(weights: list[Candidate], schemes: Schemes) -> int:
    shapes = {candidate.tensor: candidate.shape for candidate in weights}
    return sum(schemes[name].format.bytes(*shape, 2) if name in schemes else 4 * shape[0] * shape[1]
               for name, shape in shapes.items())  # fmt: skip


def test_the_default_mix_spends_its_bits_where_they_help(found: Found) -> None:
    weights = found()
    schemes = mix(weights, QuantizeOptions(), v_proj=0.1, down_proj=0.02)
    number = sum(candidate.size for candidate in weights)
    assert BITS_PER_WEIGHT - 0.2 < 8 * bytes_of(weights, schemes) / number <= BITS_PER_WEIGHT
    bits = {name.split(".")[-2]: item.format.bits for name, item in schemes.items()}
    assert bits["v_proj"] == 8
    assert bits["gate_proj"] == 4
    # A projection of 8 bits corrects the errors before it; an embedding of 8 bits has nothing to correct.
    assert all(item.method == "gptq" for name, item in schemes.items() if ".layers." in name)
    assert all((item.method == "rtn") == (item.format.bits == 8) for n, item in schemes.items() if ".layers." not in n)
    for name, item in schemes.items():
        base = {"v_proj": 0.1, "down_proj": 0.02}.get(name.split(".")[-2], 1e-4) * item.format.block_size / 32
        gain = {4: GPTQ_GAIN, 5: 4 * GPTQ_GAIN, 8: 256}[item.format.bits]
        assert item.kl_estimate == pytest.approx(base / gain)


def test_the_mix_has_5_bits_where_intaglios_kernels_run_the_graph(found: Found) -> None:
    weights = found()

    def widths(target: Any = "ort", device: Any = None, **options: Any) -> set[int]:
        asked = QuantizeOptions(**options)
        fitted = fit(weights, device, target, "int4", asked, asked.computes_in(device))
        schemes = mix(fitted, asked, v_proj=0.1, down_proj=0.02, o_proj=0.005)
        assert all(item.format.bits != 5 or item.format.block_size >= 32 for item in schemes.values())
        return {item.format.bits for item in schemes.values()}

    assert widths() == {4, 5, 8}
    for other in ({"target": "standard"}, {"device": "cuda"}, {"accuracy_level": 0}, {"activations": "fp16"}):
        assert widths(**other) == {4, 8}, other
    assert widths(bits=(8, 4)) == {4, 8}
    assert widths(bits=(4, 5)) == {4, 5}
    assert widths(bits=[4]) == {4}
    assert widths(block_size=16, target_size=80_000) == {4, 8}
    # What is kept is no choice of the mix.
    for device in (None, "cuda"):
        assert widths(bits=(4,), device=device, keep={"*.v_proj": "int8"}) == {4, 8}
    with pytest.raises(UsageError) as caught:
        widths(bits=(4, 5), device="cuda")
    assert str(caught.value) == (
        "weights of 5 bits are for intaglio's kernels: with --target ort, fp32 activations and accuracy level 4, and "
        "for no other device; leave 5 out of --bits"
    )


@pytest.mark.parametrize("special", [{"lm_head": "float"}, {"lm_head": "int8"}, {"model.embed_tokens": "int4"}])
def test_the_mix_does_not_pay_for_what_is_kept(found: Found, special: dict[str, Any]) -> None:
    weights = found()
    (path,) = special
    schemes = mix(weights, QuantizeOptions(keep=special), down_proj=0.01)
    others = [candidate for candidate in weights if candidate.paths != (path,)]
    number = sum(candidate.size for candidate in others)
    assert 8 * bytes_of(others, schemes) / number > BITS_PER_WEIGHT - 0.2
    bits = {"float": 32, "int8": 9, "int4": 5}[special[path]]
    assert 8 * bytes_of(weights, schemes) <= BITS_PER_WEIGHT * number + bits * 288 * 64
    assert (f"{path}.weight" in schemes) == (special[path] != "float")
    if special[path] != "float":
        assert schemes[f"{path}.weight"].format.bits == int(special[path][-1])


def test_a_target_size_is_kept_to(found: Found) -> None:
    weights = found()
    least = bytes_of(weights, mix(weights, QuantizeOptions(target_kl=1e9)))
    previous = None
    for size in (least, least + 2000, least + 30_000):
        schemes = mix(weights, QuantizeOptions(target_size=size), o_proj=0.01)
        assert bytes_of(weights, schemes) <= size
        total = sum(item.kl_estimate or 0 for item in schemes.values())
        assert previous is None or total < previous
        previous = total
    check_target_size(weights, QuantizeOptions(target_size=least))
    with pytest.raises(UsageError) as caught:
        check_target_size(weights, QuantizeOptions(target_size=least - 1))
    assert str(caught.value) == (
        f"target size is {least - 1:,} bytes, and the weights take at least {least:,}; "
        "ask for more, or keep less in float or int8"
    )


def test_a_target_kl_is_reached_with_the_fewest_bytes(found: Found) -> None:
    weights = found()
    sizes = []
    for kl in (1.0, 0.05, 0.01):
        schemes = mix(weights, QuantizeOptions(target_kl=kl), down_proj=0.02, o_proj=0.01)
        assert sum(item.kl_estimate or 0 for item in schemes.values()) <= kl
        sizes.append(bytes_of(weights, schemes))
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    with pytest.raises(UsageError) as caught:
        mix(weights, QuantizeOptions(target_kl=1e-6))
    assert str(caught.value) == (
        "target KL is 1e-06 nats per token, and the best mix is estimated at 3.13e-06; "
        "ask for more than that, or for --precision int8"
    )


def test_a_block_size_leaves_only_the_bits_to_the_mix(found: Found) -> None:
    weights = found()
    options = QuantizeOptions(block_size=64)
    schemes = mix(weights, options, k_proj=0.1)
    assert {item.format.block_size for item in schemes.values()} == {64}
    assert {item.format.bits for item in schemes.values()} <= {4, 5, 8}
    assert measured_formats(weights, options)["lm_head.weight"] == [BlockFormat(4, 64, symmetric=False)]


def test_float_weights_count_for_the_size_and_are_not_measured(found: Found) -> None:
    weights = found()
    options = QuantizeOptions(keep={"*_proj": "float"}, target_size=10**6)
    assert set(measured_formats(weights, options)) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert set(mix(weights, options)) == {"model.embed_tokens.weight", "lm_head.weight"}
    floats = 4 * sum(c.size for c in weights if not c.per_token)
    with pytest.raises(UsageError, match="keep less in float or int8"):
        check_target_size(weights, QuantizeOptions(keep={"*_proj": "float"}, target_size=floats))
