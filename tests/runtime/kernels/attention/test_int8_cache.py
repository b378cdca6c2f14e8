"""The int8 KV cache agrees with numpy, works in whole models, and is refused where it is not supported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from intaglio.errors import UnsupportedError, UsageError
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.runtime import TextGenerator, kernels, load
from intaglio.runtime.decoding.cache import InPlaceCache
from intaglio.runtime.engine.opening import open_session
from intaglio.runtime.engine.sizes import cache_bytes
from intaglio.runtime.kernels.edits.int8_cache import OPERATOR, SCALE_BYTES
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import graph_of
from intaglio.tests.runtime import fakes
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...conftest import run_session

Floats = NDArray[np.float32]
CHECKPOINTS = Path(__file__).parents[3] / "checkpoints"
FLOAT, INT8, INT32 = TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT32


@dataclass(frozen=True)
class Shape:
    """One attention, and what it is told of its keys: "bias", "norm" or nothing."""

    heads: int = 6
    kv_heads: int = 2
    size: int = 32
    window: int = -1
    angles: int = 16
    packed: bool = False
    told: str = ""

    def session(self, wrong: int = 0) -> ort.InferenceSession:
        """The kernel over a graph of it; ``wrong`` elements too many in what it is told."""
        types = {"query": FLOAT, "past_key": INT8, "past_value": INT8, "seqlens": INT32, "total": INT32}
        types |= {} if self.packed else {"key": FLOAT, "value": FLOAT}
        types |= {"cos": FLOAT, "sin": FLOAT} if self.angles else {}
        names = ["query", "key", "value", "past_key", "past_value", "seqlens", "total", "cos", "sin"]
        inputs = [name if name in types else "" for name in names]
        inputs += [{"bias": "bias"}.get(self.told, ""), {"norm": "norm"}.get(self.told, "")]
        stored = {"bias": self.bias(), "norm": self.norm()}
        node = helper.make_node(
            OPERATOR,
            inputs,
            ["y", "present_key", "present_value"],
            domain="com.microsoft",
            num_heads=self.heads,
            kv_num_heads=self.kv_heads,
            do_rotary=int(self.angles > 0),
            local_window_size=self.window,
        )
        graph = helper.make_graph(
            [node],
            "attention",
            [helper.make_tensor_value_info(name, kind, None) for name, kind in types.items()],
            [
                helper.make_tensor_value_info(name, kind, None)
                for name, kind in (("y", FLOAT), ("present_key", INT8), ("present_value", INT8))
            ],
            [numpy_helper.from_array(np.pad(stored[self.told], (0, wrong)), self.told)] if self.told else [],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 4
        options.add_session_config_entry(f"intaglio.{OPERATOR}", "1")
        options.register_custom_ops_library(str(kernels.library()))
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def bias(self) -> Floats:
        """Return the bias of the keys, or of queries, keys and values, with a few outlier channels as in Qwen2."""
        random = np.random.default_rng(3)
        bias = random.normal(size=(self.heads * self.packed + self.kv_heads * (1 + self.packed)) * self.size)
        bias[:: self.size // 4] *= 60
        return bias.astype(np.float32)

    def norm(self) -> Floats:
        weight = np.random.default_rng(4).normal(size=self.size).astype(np.float32)
        weight[2] *= 40
        return weight

    def key_sizes(self) -> Floats:
        """Return the divisors of the keys, [K, E]."""
        if self.told == "norm":
            sizes = np.broadcast_to(np.abs(self.norm()), (self.kv_heads, self.size)).copy()
        elif self.told == "bias":
            start = self.heads * self.size if self.packed else 0
            bias = self.bias()[start : start + self.kv_heads * self.size]
            sizes = np.abs(bias).reshape(self.kv_heads, self.size) + 3
        else:
            return np.ones((self.kv_heads, self.size), dtype=np.float32)
        pairs = np.maximum(sizes[:, : self.angles], sizes[:, self.angles : 2 * self.angles])
        sizes[:, : self.angles] = sizes[:, self.angles : 2 * self.angles] = pairs
        return sizes


class Walk:
    """Successive calls of the kernel, and their queries, keys and values."""

    def __init__(self, shape: Shape, batch: int = 1, seed: int = 5) -> None:
        self.shape, self.batch = shape, batch
        self.session = shape.session()
        self.caches = [np.zeros((batch, shape.kv_heads, 0, shape.size + SCALE_BYTES), np.int8) for _ in range(2)]
        self.random = np.random.default_rng(seed)
        self.drawn = {name: np.zeros((batch, 0, count, shape.size), np.float32) for name, count in self._counts()}
        angles = np.outer(np.arange(1024), 0.7 ** np.arange(max(shape.angles, 1))).astype(np.float32)
        self.cos, self.sin = np.cos(angles), np.sin(angles)

    def _counts(self) -> list[tuple[str, int]]:
        return [("query", self.shape.heads), ("key", self.shape.kv_heads), ("value", self.shape.kv_heads)]

    def call(self, tokens: int) -> Floats:
        new = {
            name: self.random.normal(size=(self.batch, tokens, n, self.shape.size)).astype(np.float32)
            for name, n in self._counts()
        }
        return self.feed(new)

    def feed(self, new: dict[str, Floats]) -> Floats:
        shape = self.shape
        self.drawn = {name: np.concatenate([old, new[name]], axis=1) for name, old in self.drawn.items()}
        total = self.drawn["query"].shape[1]
        flat = {name: value.reshape(self.batch, value.shape[1], -1) for name, value in new.items()}
        feeds: dict[str, Any] = {
            "seqlens": np.full(self.batch, total - 1, dtype=np.int32),
            "total": np.array([total], dtype=np.int32),
            "past_key": self.caches[0],
            "past_value": self.caches[1],
        }
        feeds |= {"query": np.concatenate(list(flat.values()), axis=-1)} if shape.packed else flat
        if shape.angles:
            feeds |= {"cos": self.cos, "sin": self.sin}
        y, *self.caches = run_session(self.session, feeds)
        return np.asarray(y)

    def rotated(self, name: str) -> NDArray[np.float64]:
        """Return queries or keys as the kernel multiplies them, in float64, [B, heads, T, E]."""
        shape, half = self.shape, self.shape.angles
        x = self.drawn[name].astype(np.float64).swapaxes(1, 2)
        if half:
            cos, sin = (table[: x.shape[2]].astype(np.float64) for table in (self.cos, self.sin))
            a, b = x[..., :half], x[..., half : 2 * half]
            x = np.concatenate([a * cos - b * sin, b * cos + a * sin, x[..., 2 * half :]], axis=-1)
        sizes = shape.key_sizes()[:, None]
        if name == "key":
            return np.asarray(x / sizes)
        return np.asarray(x * np.repeat(sizes, shape.heads // shape.kv_heads, axis=0))

    def read(self, index: int) -> NDArray[np.float64]:
        """Return a cache in float64, [B, K, T, E]."""
        rows = self.caches[index]
        units = np.ascontiguousarray(rows[..., self.shape.size :]).view(np.float32).astype(np.float64)
        return np.asarray(rows[..., : self.shape.size].astype(np.float64) * units)

    def expected(self) -> NDArray[np.float64]:
        """Return the attention of all queries over the caches, [B, T, H * E]."""
        shape, group = self.shape, self.shape.heads // self.shape.kv_heads
        queries = self.rotated("query")
        keys, values = (np.repeat(self.read(index), group, axis=1) for index in range(2))
        scores = queries @ keys.swapaxes(2, 3) / np.sqrt(shape.size)
        at = np.arange(scores.shape[-1])
        hidden = at[None] > at[:, None]
        if shape.window > 0:
            hidden |= at[None] <= at[:, None] - shape.window
        scores[..., hidden] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        y = (weights @ values).swapaxes(1, 2)
        return np.asarray(y.reshape(*y.shape[:2], -1))


def supported() -> bool:
    try:
        Shape().session()
    except Exception:
        return False
    return True


needs_kernel = pytest.mark.skipif(not supported(), reason="no compiled kernels for this processor")
SHAPES = {
    "told nothing": Shape(),
    "a bias": Shape(told="bias"),
    "a norm": Shape(told="norm"),
    "packed, with a bias": Shape(told="bias", packed=True),
    "a window": Shape(told="bias", window=9),
    "no rotation": Shape(told="norm", angles=0),
    "half of it rotated": Shape(told="bias", angles=8),
    "large heads": Shape(size=80, angles=40, told="bias", heads=14),
}


@needs_kernel
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_caches_and_outputs_agree_with_numpy(shape: Shape) -> None:
    walk = Walk(shape)
    found = np.concatenate([walk.call(tokens) for tokens in (70, 1, 1, 13, 200, 1)], axis=1)
    for index, name in enumerate(("key", "value")):
        wanted = walk.rotated("key") if name == "key" else walk.drawn["value"].astype(np.float64).swapaxes(1, 2)
        units = np.abs(wanted).max(axis=-1, keepdims=True) / 127
        assert np.all(np.abs(walk.read(index) - wanted) <= 0.501 * units + 1e-7)
    np.testing.assert_allclose(found, walk.expected(), atol=2e-5)


@needs_kernel
def test_the_bias_makes_keys_more_exact() -> None:
    """What the kernel is told a bias for: without it scores are further off."""
    errors = {}
    for told in ("bias", ""):
        walk = Walk(Shape(told=told))
        bias = Shape(told="bias").bias().reshape(1, 1, walk.shape.kv_heads, walk.shape.size)
        draw = np.random.default_rng(8).normal
        new = {name: draw(size=(1, 64, count, 32)).astype(np.float32) for name, count in walk._counts()}
        new["key"] = new["key"] + bias
        walk.feed(new)
        exact, kept = walk.rotated("key"), walk.read(0)
        group = walk.shape.heads // walk.shape.kv_heads
        off = walk.rotated("query") @ np.repeat(exact - kept, group, axis=1).swapaxes(2, 3)
        errors[told] = float(np.sqrt(np.mean(off**2)))
    assert errors["bias"] < 0.8 * errors[""]


@needs_kernel
@pytest.mark.parametrize("window", [-1, 65])
@pytest.mark.parametrize("group", [1, 3, 7])
def test_a_row_is_the_same_bit_for_bit_alone_in_a_batch_and_in_chunks(group: int, window: int) -> None:
    shape = Shape(heads=2 * group, window=window, told="bias")
    draw = np.random.default_rng(9).normal
    given = {name: draw(size=(1, 150, n, 32)).astype(np.float32) for name, n in Walk(shape)._counts()}
    found = []
    for sizes in ([150], [1] * 150, [64, 64, 22], [7] * 21 + [3]):
        walk, start, rows = Walk(shape), 0, []
        for size in sizes:
            rows.append(walk.feed({name: value[:, start : start + size] for name, value in given.items()}))
            start += size
        found.append(np.concatenate(rows, axis=1)[0])
    many = Walk(shape, batch=3)
    found.append(many.feed({name: np.concatenate([value[:, ::-1], value, -value]) for name, value in given.items()})[1])
    assert all(np.array_equal(found[0], other) for other in found)


@needs_kernel
def test_zeros_and_infinity() -> None:
    walk = Walk(Shape())
    new = {name: np.zeros((1, 3, count, 32), dtype=np.float32) for name, count in walk._counts()}
    assert not walk.feed(new).any()
    new["value"][0, 1, 0, 5] = np.inf
    y = walk.feed(new)[0].reshape(3, 6, 32)
    assert np.isfinite(y[:, 3:]).all()
    assert not np.isfinite(y[1:, :3]).any()


@needs_kernel
@pytest.mark.parametrize("told", ["bias", "norm"])
def test_a_bias_or_norm_of_the_wrong_size_is_refused(told: str) -> None:
    walk = Walk(Shape(told=told))
    walk.session = walk.shape.session(wrong=1)
    wanted = {"bias": r"\[65\]; it must be .* = \[64\]", "norm": r"\[33\]; it must be .* = \[32\]"}[told]
    message = f"intaglio: GroupQueryAttentionInt8: input key_{told} has the shape {wanted}"
    with pytest.raises(Exception, match=message):
        walk.call(2)


# ---- whole models -------------------------------------------------------------------------------------------------


def generator(folder: Path, **how: Any) -> TextGenerator:
    model = load(folder, **how)
    assert isinstance(model, TextGenerator)
    return model


@pytest.fixture(scope="module", params=["qwen2", "exaone4", "qwen2 int4"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, *precision = request.param.split()
    out = tmp_path_factory.mktemp("int8-cache") / "out"
    if precision:
        quantize(CHECKPOINTS / f"tiny-{family}", out, precision="int4", options=QuantizeOptions(method="rtn"))
    else:
        export(CHECKPOINTS / f"tiny-{family}", out)
    return out


@needs_kernel
def test_a_model_has_nearly_the_same_log_probabilities(artifact: Path) -> None:
    whole, small = generator(artifact), generator(artifact, kv_cache="int8")
    text = "The history of the city begins in 1905, when a railway was built along the river."
    assert small.session.cache_dtype == "int8"
    assert small.session.intaglio_kernels[-1] == OPERATOR
    wanted, found = (model.score(text).logprobs[1:] for model in (whole, small))
    off = np.abs(np.subtract(wanted, found, dtype=float))
    assert 0 < off.max() < 0.2
    assert off.mean() < 0.03


@needs_kernel
def test_the_ways_to_generate_agree(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = generator(artifact, kv_cache="int8")
    prompts = ["The river", "a b a b a b a b", "In 1905"]
    how: dict[str, Any] = {"max_new_tokens": 24, "temperature": 0}
    alone = [lm.generate(prompt, speculate=False, **how).token_ids for prompt in prompts]
    assert [one.token_ids for one in lm.generate(prompts, **how)] == alone
    assert lm.generate(prompts[1], speculate=True, **how).token_ids == alone[1]
    monkeypatch.setattr("intaglio.runtime.decoding.prefill.PREFILL_CHUNK", 3)
    assert lm.generate(prompts[2], **how).token_ids == alone[2]


@needs_kernel
def test_sliding_layers_keep_their_window(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "source", tiny.config("exaone4", max_position_embeddings=512), tokenizer=True)
    export(source, tmp_path / "out")
    lm, small = generator(tmp_path / "out"), generator(tmp_path / "out", kv_cache="int8")
    assert lm.session.windowed
    assert small.session.windowed
    prompt = [*range(5, 250), *range(5, 60)]
    wanted, found = (model.score(prompt).logprobs[1:] for model in (lm, small))
    assert np.abs(np.subtract(wanted, found, dtype=float)).max() < 0.2
    facts = lm.manifest.model
    row = facts.head_dim + SCALE_BYTES
    kept = 3 * 69 + 300  # three of four layers have windows of 6
    assert small.session.cache_bytes(300) == 2 * facts.num_key_value_heads * kept * row
    whole = TextGenerator(
        open_session(tmp_path / "out", small.manifest, kv_cache="int8"), small.tokenizer, small.defaults
    )
    assert not whole.session.windowed
    assert whole.score(prompt).logprobs == small.score(prompt).logprobs
    how: dict[str, Any] = {"max_new_tokens": 100, "temperature": 0, "eos_token_id": []}
    assert small.generate(prompt[:200], **how).token_ids == whole.generate(prompt[:200], **how).token_ids


@needs_kernel
def test_it_takes_about_a_quarter_of_the_memory(tmp_path: Path) -> None:
    folder = fakes.language_model(tmp_path / "lm")
    lm = generator(folder, kv_cache="int8")
    whole, small = (cache_bytes(lm.manifest.model, 100, windowed=False, int8=int8) for int8 in (False, True))
    assert small * 4 * fakes.HEAD_DIM == whole * (fakes.HEAD_DIM + SCALE_BYTES)
    assert InPlaceCache(lm.session, slots=2, longest_prompt=50, max_length=100).bytes(100) == 2 * small


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"kernels": "onnxruntime"},
            "an int8 KV cache needs intaglio's own attention; leave out kernels='onnxruntime'",
        ),
        ({"device": "cuda"}, "an int8 KV cache is for device='cpu' only; leave it out on a GPU"),
    ],
    ids=["kernels", "device"],
)
def test_conflicting_options_are_refused(tmp_path: Path, how: dict[str, Any], message: str) -> None:
    folder = fakes.language_model(tmp_path / "lm")
    with pytest.raises(UsageError, match=message):
        load(folder, kv_cache="int8", **how)
    with pytest.raises(UsageError, match="unknown KV cache 'int4'; use 'exact', 'int8' or 'auto'"):
        load(folder, kv_cache="int4")  # type: ignore[call-overload]


def test_unsupported_artifacts_are_refused(tmp_path: Path) -> None:
    head = fakes.head(tmp_path / "head", "text-classification", np.zeros((fakes.VOCAB, 3)))
    with pytest.raises(UsageError, match="is a text-classification artifact, which has no KV cache"):
        load(head, kv_cache="int8")
    standard = fakes.language_model(tmp_path / "standard", target="standard")
    with pytest.raises(UnsupportedError, match=r"needs an artifact of target 'ort' .* target 'standard' and fp32"):
        load(standard, kv_cache="int8")


def test_without_intaglios_attention_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fakes.language_model(tmp_path / "lm")
    monkeypatch.setattr(kernels, "library", lambda: None)
    with pytest.raises(
        UnsupportedError, match=r"needs intaglio's own attention, .* AVX2, AVX-512 or NEON and a C compiler"
    ):
        load(folder, kv_cache="int8")


def test_unsupported_head_sizes_are_refused(tmp_path: Path) -> None:
    """Refuse it although the matrix multiplications alone could use intaglio's kernels, with a float32 cache."""
    source = tiny.write(tmp_path / "source", tiny.config("qwen2", head_dim=24), tokenizer=True)
    quantize(source, tmp_path / "out", precision="int4", options=QuantizeOptions(method="rtn"))
    with pytest.raises(UnsupportedError, match=r"own attention, .* and a head_dim that is a multiple of 16 up to 256"):
        load(tmp_path / "out", kv_cache="int8")


def test_the_graph_file_keeps_a_float32_cache(artifact: Path) -> None:
    """Keep float32 in the file, because other programs read it."""
    graph = onnx.load(graph_of(artifact), load_external_data=False).graph
    caches = [value for value in graph.input if value.name.startswith("past_key_values.")]
    assert {value.type.tensor_type.elem_type for value in caches} == {FLOAT}
