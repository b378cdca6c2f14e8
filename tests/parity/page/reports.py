"""Reports made up for the page: one of each verdict, a head, and one whose texts are out to do harm."""

import math
import random
from dataclasses import replace
from typing import Any

from intaglio.parity.report.report import Report
from intaglio.parity.report.result import (
    CaseResult,
    Continuation,
    Figures,
    Finding,
    LayerError,
    Limit,
    Reference,
    TensorError,
    WorstToken,
)
from intaglio.parity.report.thresholds import LIMITS

PROJECTIONS = {
    "self_attn.q_proj": (896, 896),
    "self_attn.k_proj": (128, 896),
    "self_attn.v_proj": (128, 896),
    "self_attn.o_proj": (896, 896),
    "mlp.gate_proj": (4864, 896),
    "mlp.up_proj": (4864, 896),
    "mlp.down_proj": (896, 4864),
}
TOOLS = {"intaglio": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "onnxruntime": "1.31.1", "onnx": "1.23.2"}


def faithful(layers: int = 24) -> Report:
    """float32, 24 layers, rounding and nothing else."""
    rng = random.Random(1)
    figures = Figures(1016, 4.9e-5, 4.2e-6, 1.31e-6, 1.0, 1.0, 0, 0, 2.1e-12, 4.0e-11, 3.2e-10, 21.43182, 21.43181)
    decode = replace(figures, positions=65, max_difference=3.1e-5, perplexity=None, source_perplexity=None)
    cases = [
        ("prompt", "whole windows of text, the logits of every position", figures),
        ("decode", "254 tokens prefilled, 64 decoded one by one through the cache", decode),
        ("chunks", "a window in pieces of unequal length behind each other", replace(figures, positions=508)),
        ("batch", "three prompts of unequal length decoded together", replace(decode, positions=39, near_ties=1)),
        ("padded-right", "a batch padded on the right, in one call of the graph", replace(decode, positions=486)),
    ]
    refused = "attention_mask starts with 0; pad on the right, or export with --target standard"
    return Report(
        verdict="faithful",
        reasons=(),
        artifact="qwen2-0.5b-fp32",
        source="qwen2-0.5b",
        digest="fe7d95f071f2baff8678c109df14dace9a96a5a3cf455082e4287208498f3db9",
        family="qwen2",
        task="text-generation",
        target="ort",
        precision="fp32",
        parameters=494_032_768,
        bytes=1_998_203_112,
        device="cpu",
        text="the text that comes with intaglio, 2 windows of 508 tokens",
        date="2026-03-14T15:09:26+00:00",
        seconds=47.3,
        peak_rss_bytes=2_911_000_000,
        limits=LIMITS["fp32"],
        cases=(
            *(CaseResult(name, what, "faithful", found) for name, what, found in cases),
            CaseResult("padded-left", "the same padded on the left: right, or refused", "faithful", refused=refused),
        ),
        continuations=(agreeing("The history of the city", " is a long and complicated one.", 32),),
        layers=curve(layers, lambda x: 1e-7 * (1 + 12 * x) * rng.uniform(0.8, 1.3), first=0.0),
        tensors=float_tensors(layers),
        findings=(),
        worst_tokens=(),
        kl_by_position=divergences(rng, 2, 508, 1e-12),
        logits=logits(rng, 4000, 2e-6),
        references=(
            Reference("transformers 5.23.0", figures, replace(figures, max_difference=6.2e-5, relative_error=1.4e-6)),
        ),
        not_compared=("RoPE of type dynamic changes at 32,768: 32,780 tokens are more than --max-length of 4,096",),
        tools=TOOLS,
        machine="Linux 6.1 on x86_64, 2 cores, AVX2",
        command="intaglio parity qwen2-0.5b-fp32 --source qwen2-0.5b --html qwen2-0.5b-fp32/parity.html",
    )


def drifted(layers: int = 24) -> Report:
    """int4 with mixed bits and block sizes."""
    rng = random.Random(2)
    figures = Figures(2032, 7.31, 0.412, 0.0931, 0.904, 0.997, 121, 74, 0.0317, 0.284, 1.62, 22.71, 21.43)
    short = replace(figures, perplexity=None, source_perplexity=None)
    reasons = ("kl_mean is 0.0317, above 0.02", "flips is 0.0595, above 0.05")
    cases = [
        ("prompt", "whole windows of text, the logits of every position", figures, reasons),
        (
            "decode",
            "254 tokens prefilled, 64 decoded one by one",
            replace(short, positions=65, flips=3, kl_mean=0.0288),
            reasons[:1],
        ),
        ("chunks", "a window in pieces of unequal length", replace(short, positions=508, flips=25, kl_mean=0.0194), ()),
        (
            "batch",
            "three prompts decoded together",
            replace(short, positions=39, flips=1, near_ties=2, kl_mean=0.0212),
            reasons[:1],
        ),
    ]
    return replace(
        faithful(layers),
        verdict="drifted",
        reasons=("prompt: kl_mean is 0.0317, above 0.02", "prompt: flips is 0.0595, above 0.05"),
        artifact="qwen2-0.5b-int4",
        precision="int4",
        bytes=329_903_833,
        seconds=312.0,
        limits=LIMITS["int4"],
        cases=tuple(
            CaseResult(n, what, "drifted" if why else "faithful", found, None, why) for n, what, found, why in cases
        ),
        continuations=(
            parting("The history of the city", " of London is a long", " and complicated one, and begins", " one", 9),
            agreeing("def fibonacci(n):\n", "    if n <= 1:\n        return n\n    return fibonacci(n - 1)", 32),
            parting("The capital of France is", " Paris. It is the largest city", " in the country.", " of", 21, True),
        ),
        layers=curve(layers, lambda x: 0.031 * math.exp(1.4 * x) * rng.uniform(0.9, 1.1), first=0.083),
        tensors=quantized_tensors(layers, rng),
        worst_tokens=tuple(
            WorstToken("prompt", 17 + 61 * i, before, wanted, got, 0.61 - 0.03 * i, 0.44 + 0.02 * i, 1.62 * 0.86**i)
            for i, (before, wanted, got) in enumerate(
                (
                    ("the term ‘jargon’ for the technical vocabularies of various", " occupations", " disciplines"),
                    ("However, the ancestor of this collection was called the ‘J", "argon", "ok"),
                    ("and hacker slang is traditionally ‘the jargon’.\n\n  ", " When", " In"),
                    ("what a linguist would call hackers' jargon — the", " formal", " technical"),
                    ("slang and the vocabulary of technical programming and computer science is fuzzy", ",", " and"),
                    ("Further, this vocabulary is shared with a wider technical culture", " of", ","),
                )
            )
        ),
        kl_by_position=divergences(rng, 4, 508, 0.02),
        logits=logits(rng, 6000, 0.35, slope=0.985),
        references=(),
    )


def broken(layers: int = 32) -> Report:
    """A hybrid EXAONE whose window is one too long, and a weight that is another layer's."""
    rng = random.Random(3)
    figures = Figures(1016, 24.9, 2.13, 0.871, 0.381, 0.702, 611, 12, 1.94, 9.13, 14.2, 611.2, 17.94)
    findings = (
        Finding(
            "model.layers.3.self_attn",
            "GroupQueryAttention",
            0.412,
            2e-5,
            "attends to 129 tokens, config.json's sliding_window is 128",
        ),
        Finding(
            "model.layers.11.mlp.down_proj",
            "MatMul",
            1.38,
            2e-5,
            "holds the weight of model.layers.12.mlp.down_proj",
        ),
        Finding("model.layers.19.self_attn.q_norm", None, 3.1e-4, 2e-5, "epsilon is 1e-5, config.json says 1e-6"),
    )

    def error(x: float) -> float:
        layer = round(x * layers)
        return 2e-7 * (1 + layer) if layer < 3 else (0.02 if layer < 11 else 0.4) * (1 + x) * rng.uniform(0.9, 1.1)

    tensors = [
        replace(t, error=1.41, fault="is the source's model.layers.12.mlp.down_proj.weight, bit for bit")
        if t.module == "model.layers.11.mlp.down_proj"
        else t
        for t in float_tensors(layers)
    ]
    tail = replace(figures, positions=65, perplexity=None, source_perplexity=None)
    why = ("relative_error is 0.871, above 0.01", "kl_mean is 1.94, above 0.001", "flips is 0.601, above 0.01")
    return replace(
        faithful(layers),
        verdict="broken",
        reasons=tuple(f"prompt: {text}" for text in why),
        artifact="exaone-4.0-hybrid",
        source="org/exaone-4.0-hybrid",
        family="exaone4",
        parameters=31_960_000_000,
        bytes=127_840_000_000,
        seconds=8041.0,
        cases=(
            CaseResult("prompt", "whole windows of text, the logits of every position", "broken", figures, None, why),
            CaseResult("decode", "254 tokens prefilled, 64 decoded one by one", "broken", tail, None, why[:2]),
            CaseResult(
                "edge-128-prompt",
                "sliding window of 128: prompts below, at and above it",
                "broken",
                replace(tail, positions=32, kl_mean=0.92),
                None,
                why[:1],
            ),
            CaseResult("padded-left", "the same padded on the left", "broken", refused="Non-zero status code returned"),
        ),
        continuations=(parting("The history of", "", " the the the the the", " the", 0),),
        layers=curve(layers, error, first=0.0),
        tensors=tuple(tensors),
        findings=findings,
        worst_tokens=drifted().worst_tokens[:3],
        kl_by_position=divergences(rng, 2, 508, 1.2),
        logits=logits(rng, 4000, 3.1, slope=0.62),
        references=(),
        not_compared=(),
    )


def classifier() -> Report:
    """A sequence classifier: no next tokens, so neither divergences by position nor perplexities."""
    rng = random.Random(4)
    figures = Figures(48, 0.0171, 0.0042, 0.0058, 1.0, 1.0, 0, 0)
    return replace(
        faithful(4),
        artifact="sentiment-int8",
        source="tiny-qwen2-sst2",
        task="text-classification",
        precision="int8",
        parameters=1_061_120,
        bytes=1_602_114,
        seconds=2.4,
        peak_rss_bytes=None,
        text="the text that comes with intaglio, 48 texts",
        limits=(Limit("relative_error", 0.05, 0.3, "8 bits in blocks of 32"),),
        cases=(
            CaseResult("alone", "each text by itself", "faithful", figures),
            CaseResult("batch", "batches padded on the right, as the runtime makes them", "faithful", figures),
        ),
        continuations=(),
        tensors=quantized_tensors(4, rng, eight=1.0),
        kl_by_position=(),
        logits=logits(rng, 96, 0.01),
        references=(),
        not_compared=(),
    )


HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\nb\tc\r\x00\x1b[31m",
    "👩‍👩‍👧 \ufe0f🏴\u200d",
    "مرحبا بالعالم ",
    "\u202egnp.exe",
    "zero\u200bwidth\ufeff",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- --></style>&amp;&#60;",
    "\ud83d",
    "\u0301",
    "",
    "   ",
)


def hostile() -> Report:
    """Every text of the report is one that a careless page would stumble over."""
    base = broken(4)
    return replace(
        base,
        artifact=HOSTILE[0],
        source=HOSTILE[1],
        digest=HOSTILE[8],
        text=HOSTILE[7],
        date=HOSTILE[4],
        device=HOSTILE[0],
        machine=HOSTILE[5],
        command="intaglio parity '" + HOSTILE[0] + '\' && echo "x"',
        reasons=HOSTILE,
        cases=(*base.cases, CaseResult(HOSTILE[0], HOSTILE[1], "broken", None, HOSTILE[8], HOSTILE[:3])),
        findings=tuple(Finding(text, text, 1.0, 0.1, text) for text in HOSTILE),
        continuations=tuple(parting(text, text, HOSTILE[i - 1], text, 3) for i, text in enumerate(HOSTILE)),
        worst_tokens=tuple(
            WorstToken(HOSTILE[0], i, text * 3, text, HOSTILE[i - 1], 0.5, 0.4, 1.0) for i, text in enumerate(HOSTILE)
        ),
        layers=tuple(LayerError(text, 0.1 * (1 + i)) for i, text in enumerate(HOSTILE)),
        tensors=tuple(
            TensorError(text, f"model.layers.{i}.{text}_proj", text, 4, 32, text, 10, 0.1, fault=text)
            for i, text in enumerate(HOSTILE)
        ),
        limits=(Limit(HOSTILE[0], 0.1, 1.0, HOSTILE[1]), *base.limits),
        references=(Reference(HOSTILE[0], _first(base), _first(base)),),
        not_compared=HOSTILE,
        tools={text: text for text in HOSTILE},
    )


def empty() -> Report:
    """A report with nothing in it but its verdict."""
    nothing: dict[str, Any] = dict.fromkeys(
        "reasons limits cases continuations layers tensors findings worst_tokens kl_by_position logits references"
        " not_compared".split(),
        (),
    )
    return replace(faithful(1), **nothing)


def _first(report: Report) -> Figures:
    found = report.cases[0].figures
    assert found
    return found


def agreeing(prompt: str, text: str, tokens: int) -> Continuation:
    """A continuation that the source would have written to its end."""
    return Continuation(prompt, text, tokens, tokens, agreed_text=text)


def parting(
    prompt: str, both: str, alone: str, wanted: str, agreed: int, near_tie: bool = False, tokens: int = 32
) -> Continuation:
    """One of which the source would have written the beginning, and then something else."""
    return Continuation(prompt, both + alone, tokens, agreed, near_tie, both, wanted)


def curve(layers: int, error: Any, first: float) -> tuple[LayerError, ...]:
    inner = [LayerError(f"model.layers.{i}", error(i / layers)) for i in range(layers)]
    return (LayerError("model.embed_tokens", first), *inner, LayerError("model.norm", error(1.0)))


def float_tensors(layers: int) -> tuple[TensorError, ...]:
    names = [f"model.layers.{i}.{path}" for i in range(layers) for path in (*PROJECTIONS, "input_layernorm")]
    tensors = [
        TensorError(
            f"{n}.weight", n, "fp32", None, None, None, math.prod(PROJECTIONS.get(n.split(".", 3)[3], (896,))), 0.0
        )
        for n in names
    ]
    embedding = TensorError(
        "model.embed_tokens.weight", "model.embed_tokens", "fp32", None, None, None, 136_134_656, 0.0
    )
    return (embedding, *tensors, TensorError("model.norm.weight", "model.norm", "fp32", None, None, None, 896, 0.0))


def quantized_tensors(layers: int, rng: random.Random, eight: float = 0.3) -> tuple[TensorError, ...]:
    found = []
    paths = [f"model.layers.{i}.{path}" for i in range(layers) for path in PROJECTIONS]
    for module in ["model.embed_tokens", *paths, "lm_head"]:
        bits = 8 if rng.random() < (eight if "mlp" in module else 2 * eight) else 4
        block = rng.choice((32, 64, 128)) if bits == 8 else rng.choice((32, 32, 32, 64))
        method = "rtn" if bits == 8 else "gptq"
        error = rng.uniform(0.005, 0.0095) if bits == 8 else rng.uniform(0.082, 0.121)
        elements = math.prod(PROJECTIONS.get(module.split(".", 3)[-1], (151_936, 896)))
        damage = error**2 * rng.lognormvariate(-3.2, 0.8)
        exact = TensorError(
            f"{module}.codes", module, f"int{bits}", bits, block, method, elements, error, error, damage
        )
        found.append(replace(exact, worst_block=error * rng.uniform(1.4, 2.6), worst_row=rng.randrange(896)))
    norms = [f"model.layers.{i}.{name}_layernorm" for i in range(layers) for name in ("input", "post_attention")]
    return (*found, *(TensorError(f"{n}.weight", n, "fp32", None, None, None, 896, 0.0) for n in norms))


def divergences(rng: random.Random, windows: int, length: int, scale: float) -> tuple[tuple[float, ...], ...]:
    return tuple(
        tuple(scale * rng.lognormvariate(-0.7, 1.1) for _ in range(length if w else length - 40))
        for w in range(windows)
    )


def logits(rng: random.Random, count: int, noise: float, slope: float = 1.0) -> tuple[tuple[float, float], ...]:
    source = [rng.gauss(-1.5, 2.6) + (rng.random() < 0.02) * rng.uniform(6, 14) for _ in range(count)]
    return tuple((x, slope * x + rng.gauss(0, noise)) for x in source)
