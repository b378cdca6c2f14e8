"""Intaglio's QMoE agrees with dequantized experts and with ONNX Runtime's; a token's bits depend on nothing else."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.exporter.quantize.options import QuantizedPrecision
from intaglio.runtime import TextGenerator, kernels, load
from intaglio.runtime.kernels.weight_file import WeightFile
from intaglio.tests import tiny

from ...conftest import NAMES
from ..one_node import open_session
from ..test_matmul import needs_kernels
from .mixture import Array, Mixture, run, slice_of

SHAPES = (
    Mixture(experts=1, chosen=1, hidden=256, inner=256, normalized=True),
    Mixture(experts=3, chosen=3, hidden=256, inner=512),
    Mixture(experts=5, chosen=2, hidden=512, inner=256, normalized=True, halves=False),
    Mixture(experts=20, chosen=4, hidden=256, inner=256),
)
TOKENS = (1, 2, 12, 13, 40, 130)


def check(found: Array, wanted: Array) -> None:
    # A value on the edge between two integers may be rounded the other way: one step of one element.
    assert np.abs(found - wanted).max() <= 5e-3 * np.abs(wanted).max()


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zero points"])
@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("bits", [4, 8])
def test_results_agree_with_dequantized_experts(bits: int, block: int, zeros: bool) -> None:
    for number, shape in enumerate(SHAPES):
        mixture = replace(shape, bits=bits, block=block, zeros=zeros)
        ours = mixture.session()
        for tokens in (TOKENS[number], TOKENS[-1 - number]):
            call = mixture.call(tokens)
            check(run(ours, call), mixture.expected(call))


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize(("hidden", "inner"), [(16, 16), (16, 48), (80, 16), (112, 208)])
def test_sizes_that_end_within_a_chunk(hidden: int, inner: int) -> None:
    mixture = Mixture(hidden=hidden, inner=inner, block=16)
    for tokens in (1, 33):
        call = mixture.call(tokens)
        check(run(mixture.session(), call), mixture.expected(call))


@needs_kernels
@pytest.mark.parametrize("normalized", [False, True])
def test_int8_activations_are_as_near_as_onnxruntimes(normalized: bool) -> None:
    """Compare errors against exact experts: those of ONNX Runtime's int8 activations, with the same size of step."""
    mixture = Mixture(experts=12, chosen=4, hidden=512, inner=256, normalized=normalized)
    call = mixture.call(50)
    exact = mixture.expected(call, rounded=False)
    mine, theirs = (run(mixture.session(own), call) - exact for own in (True, False))
    assert np.sqrt((mine**2).mean()) < 1.3 * np.sqrt((theirs**2).mean())
    assert np.sqrt((mine**2).mean()) < 0.02 * np.sqrt((exact**2).mean())


@needs_kernels
def test_without_router_weights_factors_are_the_softmax_of_the_chosen() -> None:
    """As in ONNX Runtime, whatever normalize_routing_weights says."""
    for normalized in (False, True):
        mixture = Mixture(normalized=normalized)
        call = mixture.call(20)
        del call["router_weights"]
        found = run(mixture.session(router_weights=False), call)
        check(found, mixture.expected(call))
        theirs = run(mixture.session(own=False, router_weights=False), call)
        assert np.abs(found - theirs).max() <= 0.03 * np.abs(theirs).max()


@needs_kernels
def test_of_equal_logits_the_higher_index_is_chosen() -> None:
    """As in ONNX Runtime: factors are 1 for one expert alone, so a result is that expert's."""
    mixture = Mixture(chosen=1)
    call = mixture.call(4)
    call["router_probs"] = np.array(
        [[0, 0, 0, 0, 0, 0, 0], [1, 3, 3, 2, 3, 0, 3], [5, 5, 0, 0, 0, 0, 0], [-1, -2, -1, -3, -9, -8, -7]], np.float32
    )
    call["router_weights"] = np.ones((4, 7), np.float32)
    alone = call | {"router_probs": np.eye(7, dtype=np.float32)[[6, 6, 1, 2]]}
    for own in (True, False):
        session = mixture.session(own)
        assert np.array_equal(run(session, call), run(session, alone))


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize(
    "mixture",
    [
        Mixture(experts=11, hidden=192, inner=160),
        Mixture(experts=6, chosen=2, bits=8, block=16, zeros=False),
        Mixture(experts=2, chosen=2, hidden=512, inner=256, block=128),
    ],
)
def test_tokens_do_not_depend_on_each_other(mixture: Mixture) -> None:
    """Check that a token has the same bits alone, in a batch, in chunks and long texts, on any number of threads."""
    session, call = mixture.session(), mixture.call(200)
    together = run(session, call)
    for token in range(0, 200, 17):
        here = slice(token, token + 1)
        assert np.array_equal(run(session, slice_of(call, here)), together[:, here])
    for end in (2, 5, 12, 13, 63, 64, 131):
        assert np.array_equal(run(session, slice_of(call, slice(end))), together[:, :end])
    batch = call | {"input": call["input"].swapaxes(0, 1)}
    assert np.array_equal(run(session, batch).swapaxes(0, 1), together)
    assert np.array_equal(run(session, call | {"input": call["input"][0]}), together[0])
    for threads in (2, 3):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("intaglio.QMoE", "1")
        options.register_custom_ops_library(str(kernels.library()))
        other = ort.InferenceSession(mixture.model(), options, providers=["CPUExecutionProvider"])
        for tokens in (1, 200):
            assert np.array_equal(run(other, slice_of(call, slice(tokens))), together[:, :tokens])


@needs_kernels
def test_more_tokens_than_are_multiplied_at_once() -> None:
    """Passes have 8,192 rows: 4,096 tokens of two experts, or 819 of ten."""
    for mixture in (
        Mixture(experts=3, chosen=2, hidden=16, inner=16, block=16),
        Mixture(experts=10, chosen=10, hidden=16, inner=16, block=16),
    ):
        session, call = mixture.session(), mixture.call(5000)
        found = run(session, call)
        for at in (0, 818, 819, 820, 4095, 4096, 4999):
            here = slice(at, at + 1)
            assert np.array_equal(run(session, slice_of(call, here)), found[:, here])


@needs_kernels
@pytest.mark.parametrize("tokens", [1, 40])
def test_all_instructions_give_the_same_bits(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for mixture in (Mixture(hidden=192, inner=160), Mixture(bits=8, zeros=False), Mixture(block=16, hidden=112)):
        call, found = mixture.call(tokens), []
        for name in NAMES:
            monkeypatch.setenv("INTAGLIO_KERNELS", name.lower())
            if kernels.instructions() == name:
                found.append(run(mixture.session(), call))
        assert all(np.array_equal(one, found[0]) for one in found)


@pytest.mark.usefixtures("with_each")
def test_numbers_that_are_not_finite_stay_in_their_token() -> None:
    mixture = Mixture()
    session, call = mixture.session(), mixture.call(6)
    usual = run(session, call)
    for name, bad in (("input", np.nan), ("input", np.inf), ("router_probs", np.nan), ("router_weights", np.nan)):
        changed = call | {name: call[name].copy()}
        changed[name].reshape(6, -1)[2] = bad
        found = run(session, changed)
        assert not np.isfinite(found[0, 2]).any()
        others = [0, 1, 3, 4, 5]
        assert np.array_equal(found[0, others], usual[0, others])
    zeros = call | {"input": np.zeros_like(call["input"])}
    assert not run(session, zeros).any()
    one = call["router_probs"].copy()
    one[2, 4] = np.nan
    assert np.isnan(run(session, call | {"router_probs": one})[0, 2]).all()


@needs_kernels
def test_large_gates_are_not_clamped() -> None:
    mixture = Mixture(hidden=256)
    call = mixture.call(5)
    call["input"] *= 300
    check(run(mixture.session(), call), mixture.expected(call))


@needs_kernels
def test_no_tokens() -> None:
    mixture = Mixture()
    session, empty = mixture.session(), mixture.call(0)
    assert run(session, empty).shape == (1, 0, 96)
    assert run(session, empty | {"input": np.zeros((2**40, 0, 96), np.float32)}).shape == (2**40, 0, 96)


@needs_kernels
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files of packed weights need Linux")
def test_packed_experts_are_shared_by_a_file(tmp_path: Path) -> None:
    """Each of an expert's matrices has an entry in it."""
    library = kernels.library()
    assert library is not None
    file = WeightFile(tmp_path / "packed.weights", library)
    mixture = Mixture(experts=12)
    call = mixture.call(30)
    wanted = run(mixture.session(), call)
    for _ in range(2):  # written, then mapped
        with file.used():
            session = open_session(mixture.model())
        assert np.array_equal(run(session, call), wanted)
    packed = 12 * 3 * 96 * 64 * (4 / 8 + 2 / 32 + 1 / 32)
    assert packed < file.path.stat().st_size < 1.5 * packed + 12 * 2 * 64


@needs_kernels
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_a_quantized_mixture_of_experts_runs_on_these_kernels(tmp_path: Path, precision: QuantizedPrecision) -> None:
    """Check that scores are near ONNX Runtime's, and that a sequence's tokens do not depend on its batch."""
    source = tiny.write(tmp_path / "source", tiny.config("qwen2_moe"))
    quantize(source, tmp_path / "out", precision=precision, options=QuantizeOptions(method="rtn"))
    prompts = [[5, 9, 33, 101, 7, 8], [44, 2, 3], [250, 17, 4, 9, 1, 1, 2, 3, 77]]
    with load(tmp_path / "out") as ours, load(tmp_path / "out", kernels="onnxruntime") as theirs:
        assert isinstance(ours, TextGenerator)
        assert isinstance(theirs, TextGenerator)
        assert ours.session.intaglio_kernels == ("MatMulNBits", "QMoE", "GroupQueryAttention")
        assert theirs.session.intaglio_kernels == ()
        together = ours.generate(prompts, max_new_tokens=8, temperature=0.0)
        alone = [ours.generate(prompt, max_new_tokens=8, temperature=0.0) for prompt in prompts]
        assert [one.token_ids for one in together] == [one.token_ids for one in alone]
        scores = [model.score(list(range(40))).logprobs for model in (ours, theirs)]
        np.testing.assert_allclose(scores[0], scores[1], atol=0.1)
