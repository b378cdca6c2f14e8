"""How the page tells numbers, token texts, measures and places, and where its axes begin and end."""

from dataclasses import replace

import pytest
from intaglio.cli.parity_report import print_report
from intaglio.parity.page import numerals, render, words
from intaglio.parity.page.mosaic import matrices, shades, worst
from intaglio.parity.page.paths import layer_of, short
from intaglio.parity.page.plots import Axis, level, log_axis
from intaglio.parity.page.visible import TextRun, onward, passage, plain, token
from intaglio.parity.report.result import Carried, TensorError

from . import reports


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (4.2e-6, "4.2e-6"),
        (9.96e-5, "1.0e-4"),
        (0.00099949, "1.0e-3"),
        (0.0009996, "0.00100"),
        (0.0317, "0.0317"),
        (0.99999, "1.00"),
        (14.23, "14.2"),
        (99.97, "100"),
        (1923.4, "1,923"),
        (-0.5, "−0.500"),
        (1e30, "1.00e30"),
        (float("inf"), "∞"),
        (float("nan"), "not a number"),
        (None, "–"),
    ],
)
def test_numbers_by_their_magnitude(value: float | None, text: str) -> None:
    assert numerals.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.904, "90.4 %"), (1.0, "100 %"), (0.99996, "99.996 %"), (0.0, "0 %"), (0.0001, "0.01 %"), (None, "–")],
)
def test_a_hundred_percent_only_where_nothing_is_missing(value: float | None, text: str) -> None:
    assert numerals.share(value).replace(numerals.SPACE, " ") == text


def test_sizes_times_and_changes() -> None:
    found = (
        numerals.size(329_903_833),
        numerals.size(512),
        numerals.parameters(31_960_000_000),
        numerals.parameters(12_345),
        numerals.duration(2.4),
        numerals.duration(8041),
        numerals.times(20_600),
        numerals.times(1.53),
        numerals.change(21.43, 22.71),
        numerals.change(21.43, 21.43),
        numerals.percent(0.35),
        numerals.tick(-5e-6),
    )
    plain_spaces = [text.replace(numerals.SPACE, " ") for text in found]
    assert plain_spaces == [
        "330 MB", "512 B", "32.0 billion", "12,345", "2.40 s", "2 h 14 min", "21,000 ×", "1.50 ×", "+6.0 %", "±0 %",
        "35 %", "−5e-6",
    ]  # fmt: skip


def test_blanks_of_a_token_are_visible() -> None:
    assert token(" a\n") == [TextRun("␣", True), TextRun("a", False), TextRun("↵", True)]
    assert token("") == [TextRun("empty", True)]
    assert token("\u0301a") == [TextRun("◌\u0301a", False)]
    assert token("\u200d") == [TextRun("U+200D", True)]


def test_a_passage_keeps_its_spaces_and_its_end() -> None:
    assert passage("one two\n", last=4) == [TextRun("…", True), TextRun("two", False), TextRun("↵", True)]
    assert passage("a\nb", breaks=True) == [TextRun("a", False), TextRun("↵\n", True), TextRun("b", False)]
    assert passage("👩\u200d👧\u202e") == [TextRun("👩\u200d👧", False), TextRun("U+202E", True)]
    assert passage("") == []


def test_a_continuation_shows_its_first_blank() -> None:
    assert onward(" a b\n") == [TextRun("␣", True), TextRun("a b", False), TextRun("↵\n", True)]
    assert onward("\n\nb") == [TextRun("↵", True), TextRun("↵\n", True), TextRun("b", False)]
    assert onward("") == [TextRun("empty", True)]


def test_dates_are_in_utc() -> None:
    assert numerals.moment("2026-03-14T15:09:26+00:00") == "2026-03-14 15:09 UTC"
    assert numerals.moment("2026-03-14T00:09:26+09:00") == "2026-03-13 15:09 UTC"
    assert numerals.moment("some day") == "some day"


def test_plain_text_cannot_change_its_direction() -> None:
    assert plain("\u202egnp.exe\x1b[1m\ud800") == "U+202Egnp.exeU+001B[1mU+D800"
    assert plain("مرحبا\nb") == "مرحبا\nb"


def test_reasons_call_measures_by_their_names() -> None:
    text = words.reason("prompt: kl_mean is 0.0317, above 0.02", "text-generation")
    assert text == "prompt: mean KL divergence is 0.0317, above 0.02"
    text = words.reason("prompt: flips is 0.0595, above 0.05", "text-generation")
    assert text.replace(numerals.SPACE, " ") == "prompt: share of flips is 5.95 %, above 5 %"
    assert words.reason("the artifact does not run", "text-generation") == "the artifact does not run"


def test_module_paths_are_shortened() -> None:
    assert short("model.layers.3.self_attn.q_proj") == "layer 3 · self_attn.q_proj"
    assert short("model.layers.12") == "layer 12"
    assert short("model.embed_tokens") == "embedding"
    assert short("score") == "score"
    assert layer_of("model.layers.12.mlp") == 12
    assert layer_of("model.norm") is None


def test_a_source_is_called_by_its_name() -> None:
    folders = ("/models/qwen2-0.5b/", "./qwen2-0.5b", "tests/checkpoints/qwen2-0.5b", "C:\\models\\qwen2-0.5b")
    assert {words.model_name(source) for source in folders} == {"qwen2-0.5b"}
    assert words.model_name("org/qwen2-0.5b") == "org/qwen2-0.5b"
    assert words.operator("model.norm/RMSNormalization", "model.norm") == "RMSNormalization"
    assert words.operator("MatMul", "model.norm") == "MatMul"


def test_axes_end_at_round_numbers() -> None:
    assert log_axis([3e-6, 2e-3]) == Axis(1e-6, 1e-2, log=True)
    assert log_axis([0.11, 0.43]) == Axis(0.1, 0.5, log=True)
    assert log_axis([0.11, 0.15]) == Axis(0.02, 0.2, log=True)
    assert log_axis([1e-12, 3e-7], floor=1e-8) == Axis(1e-8, 5e-7, log=True)
    assert log_axis([]) == log_axis([0.0]) == Axis(0.1, 1.0, log=True)
    assert log_axis([1e-3]).share(1e-3) == pytest.approx(1)
    assert log_axis([1e-30, 1.0], decades=8).share(1e-30) == 0
    assert Axis(0.0, 508.0).ticks() == [0, 200, 400]
    assert Axis(-11.0, 17.0).ticks() == [-10, 0, 10]
    assert Axis(1e-6, 1e-3, log=True).ticks() == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3])
    assert [level(share) for share in (-1.0, 0.0, 0.5, 1.0)] == [0, 0, 4, 8]


def _tensor(module: str, bits: int | None, error: float, **more: float) -> TensorError:
    found = TensorError(f"{module}.codes", module, f"int{bits}", bits, 32, "rtn", 100, error)
    return TensorError(**{**vars(found), **more})


def test_the_mosaic_outlines_the_largest_estimated_kl() -> None:
    q, k = (
        _tensor("model.layers.0.self_attn.q_proj", 4, 0.1, kl_estimate=2e-4),
        _tensor("model.layers.0.mlp.up_proj", 8, 0.01),
    )
    kept = _tensor("model.layers.1.self_attn.q_proj", None, 0.0)
    norm = _tensor("model.layers.1.input_layernorm", None, 0.0)
    assert matrices([q, k, kept, norm]) == [q, k, kept]
    assert matrices([kept, norm]) == []
    assert worst([k, q, kept], 1) == [q]
    assert worst([_tensor("a", 4, 0.1), _tensor("b", 4, 0.2), kept], 5)[0].module == "b"
    wrong = TensorError(**{**vars(q), "error": 1.4, "fault": "zeroed"})
    assert shades([k, wrong]).high == 0.01


def test_carried_weights_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Faulty ones are not, and those with rounded scales are said to be."""
    exact = TensorError("a.codes", "a", "int4", 4, 32, "stored", 2048, 0.0, exact=True)
    rounded, faulty = replace(exact, exact=False), replace(exact, exact=False, fault="one code")
    text = "carried over code for code: 2 weights, 4,096 numbers; 1 with scales rounded to the type of the activations"
    found = Carried.of([exact, rounded, faulty, replace(exact, exact=None, method="rtn")])
    assert str(found) == text
    assert Carried.of([replace(exact, exact=None)]) is None
    report = replace(reports.faithful(2), carried=Carried.of([exact]))
    assert "carried over code for code: 1 weight, 2,048 numbers" in render(report)
    assert report.to_dict()["carried"] == {"weights": 1, "numbers": 2048, "rounded": 0}
    assert "carried over" not in render(reports.faithful(2))
    print_report(report, None)
    assert "carried over code for code: 1 weight, 2,048 numbers" in capsys.readouterr().out
