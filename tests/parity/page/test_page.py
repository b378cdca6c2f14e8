"""The page: well-formed, self-contained, closed to hostile texts, and with every figure in its place."""

import random
import re
from dataclasses import fields, replace
from functools import cache
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from intaglio.parity import page as page_module
from intaglio.parity.page import numerals, render, words
from intaglio.parity.page.reasons import reasons
from intaglio.parity.page.render import COLUMNS, parted, worst_case
from intaglio.parity.report.report import Report
from intaglio.parity.report.result import Continuation
from intaglio.tests.parity.page import reports

VOID = {"meta", "br", "hr", "img", "link", "input", "col", "wbr"}
MAKERS = ("faithful", "drifted", "broken", "classifier", "hostile", "empty")


class Page(HTMLParser):
    """Elements with their attributes, texts, and whatever is not balanced."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.children: list[list[str]] = []
        self.firsts: list[tuple[str, str | None]] = []
        self.wrong: list[str] = []
        self.words: list[str] = []
        self.comments: list[str] = []
        self.feed(html)
        self.close()
        self.wrong += [f"<{name}> is never closed" for name in self.inside]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if len({name for name, _ in attrs}) != len(attrs):
            self.wrong.append(f"<{tag}> has an attribute twice")
        if self.children:
            self.children[-1].append(tag)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.inside.append(tag)
            self.children.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.inside or self.inside[-1] != tag:
            self.wrong.append(f"</{tag}> closes {self.inside[-1:]}")
            return
        self.inside.pop()
        self.firsts.append((tag, next(iter(self.children.pop()), None)))

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] not in ("style", "script"):
            self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@cache
def made(name: str) -> Report:
    report: Report = getattr(reports, name)()
    return report


@cache
def shown(name: str) -> str:
    return render(made(name))


@cache
def read(name: str) -> Page:
    return Page(shown(name))


@pytest.mark.parametrize("name", MAKERS)
def test_is_well_formed(name: str) -> None:
    page = read(name)
    assert page.wrong == []
    assert page.comments == []
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    targets = {str(found["href"])[1:] for tag, found in page.elements if tag == "a"}
    assert targets <= set(ids)


@pytest.mark.parametrize("name", MAKERS)
def test_needs_nothing_from_elsewhere(name: str) -> None:
    html, page = shown(name), read(name)
    links = [
        (tag, attribute, value)
        for tag, found in page.elements
        for attribute, value in found.items()
        if attribute in ("src", "href", "xlink:href", "srcset", "action", "data", "style")
        and not (tag == "a" and str(value).startswith("#"))
    ]
    assert links == []
    assert {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "embed", "form", "base"} == set()
    for block in re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", html, re.DOTALL):
        assert not re.search(r"@import|url\(|https?:|//\w|fetch\(|XMLHttpRequest|innerHTML|eval\(", block)
    policy = next(found for tag, found in page.elements if found.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'")


@pytest.mark.parametrize("name", ["faithful", "drifted", "broken", "classifier"])
def test_every_plot_has_a_title_and_a_description(name: str) -> None:
    page = read(name)
    plots = [found for tag, found in page.elements if tag == "svg" and found.get("role") == "img"]
    ids = {found["id"] for _, found in page.elements if "id" in found}
    assert len(plots) >= 4
    for plot in plots:
        assert plot["aria-labelledby"] in ids
        assert plot["aria-describedby"] in ids
    decorative = [found for tag, found in page.elements if tag == "svg" and found.get("role") != "img"]
    assert all(found.get("aria-hidden") == "true" or "viewbox" in found for found in decorative)


def test_tables_name_their_rows_and_columns() -> None:
    page = read("drifted")
    assert all(found.get("scope") for tag, found in page.elements if tag == "th")
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


def test_hostile_texts_are_shown_and_do_nothing() -> None:
    html, page = shown("hostile"), read("hostile")
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert "<script>alert(1)" not in html
    assert reports.HOSTILE[0] in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "49" not in re.findall(r"\d+", page.text.split("Worst tokens")[-1].split("Continuations")[0])
    for character in "\u202e\u200b\ufeff\x00\x1b":
        assert character not in "".join(re.findall(r'<bdi class="token.*?</bdi>', html, re.DOTALL))
    for mark in ("U+202E", "U+200B", "U+0000", "U+001B", "↵", "⇥", "␣␣␣", "U+D83D", "empty", "◌\u0301"):
        assert mark in re.sub(r"</?span[^>]*>", "", html)
    html.encode("utf-8")


@pytest.mark.parametrize(
    ("field", "identity"),
    [
        ("cases", "cases"),
        ("layers", "layers"),
        ("kl_by_position", "positions"),
        ("logits", "calibration"),
        ("worst_tokens", "worst"),
        ("continuations", "continuations"),
        ("tensors", "tensors"),
        ("references", "references"),
        ("not_compared", "omitted"),
    ],
)
def test_empty_sections_disappear(field: str, identity: str) -> None:
    report = replace(
        made("faithful"), worst_tokens=made("drifted").worst_tokens[:1], tensors=made("faithful").tensors[:9]
    )
    html, without = render(report), render(replace(report, **{field: ()}))  # type: ignore[arg-type]
    sections = re.findall(r'<section id="(\w+)"', html)
    assert sections.count(identity) == 1
    assert re.findall(r'<section id="(\w+)"', without) == [name for name in sections if name != identity]
    assert f'href="#{identity}"' in html
    assert f'href="#{identity}"' not in without


def test_findings_appear_when_there_are_any() -> None:
    assert 'id="findings"' not in shown("faithful")
    report = made("broken")
    text = Page(render(report)).text
    for finding in report.findings:
        assert finding.module in text
        assert finding.cause in text
        assert numerals.number(finding.error) in text
    assert "is the source's model.layers.12.mlp.down_proj.weight, bit for bit" in text


@pytest.mark.parametrize("name", ["faithful", "drifted", "broken"])
def test_every_figure_of_the_worst_case_appears(name: str) -> None:
    report = made(name)
    case = worst_case(report)
    assert case
    assert case.figures
    row = re.search(r'<tr class="worst">.*?</tr>', render(report), re.DOTALL)
    assert row
    cells = [unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in re.findall(r"<td.*?</td>", row[0], re.DOTALL)]
    assert cells == [c.show(getattr(case.figures, c.field)) for c in COLUMNS]
    shown = {field.name for field in fields(case.figures)} - {"standard_errors"}
    assert {column.field for column in COLUMNS} == shown
    text = Page(row[0]).text
    assert case.verdict == "faithful" or case.reasons
    assert all(" ".join(words.reason(reason, report.task).split()) in text for reason in case.reasons)


def test_the_verdict_and_the_card_come_first() -> None:
    report = made("drifted")
    text = Page(render(report)).text
    checked = "2026-03-14 15:09 UTC, in 5 min on cpu"
    card = (report.digest, "494 million (494,032,768)", "330 MB, 5.34 bits a parameter", checked, report.text)
    for fact in ("Drifted", "qwen2-0.5b-int4 , an int4 copy of qwen2-0.5b", "mean KL divergence is 0.0317", *card):
        assert 0 <= text.index(fact) < text.index("Each way of running the artifact")
    (command,) = re.findall(r'<pre id="command">(.*?)</pre>', render(report), re.DOTALL)
    assert unescape(re.sub(r"<[^>]+>", "", command)) == report.command


def test_many_reasons_are_counted() -> None:
    report = replace(made("broken"), reasons=tuple(f"reason {n}" for n in range(30)), artifact="/some/where/else/out/")
    text = Page(render(report)).text
    assert "reason 3 and 26 more, listed below" in text
    assert "out , an fp32 copy of org/exaone-4.0-hybrid" in text
    assert "/some/where/else/out/" in text


def test_findings_come_before_exceeded_limits() -> None:
    report = made("broken")
    finding = report.findings[0]
    symptoms = tuple(f"prompt: flips is 0.{n}, above 0.01" for n in range(10, 30))
    page = Page(render(replace(report, reasons=(*symptoms, f"{finding.module}: {finding.cause}"))))
    assert 0 < page.text.index(f"{finding.module}: {finding.cause}") < page.text.index("share of flips is 10")


def test_a_limit_exceeded_in_many_cases_is_one_reason() -> None:
    report = made("drifted")
    beyond = [f"{case.name}: {text}" for case in report.cases for text in case.reasons]
    assert reasons(replace(report, reasons=tuple(beyond))) == [
        "prompt: kl_mean is 0.0317, above 0.02; also in 2 other cases",
        "prompt: flips is 0.0595, above 0.05",
    ]


def test_a_faulty_weight_that_a_finding_names_is_listed_once() -> None:
    report = made("broken")
    (tensor,) = [tensor for tensor in report.tensors if tensor.fault]
    assert tensor.fault
    finding = replace(report.findings[1], cause=f"another weight; {tensor.name}: {tensor.fault}")
    texts = (f"{finding.module}: {finding.cause}", f"{tensor.name}: {tensor.fault}")
    both = replace(report, findings=(finding,), reasons=texts)
    assert reasons(both) == [f"{finding.module}: another weight"]
    page = render(both)
    assert "Weights that are not the source" not in page
    assert tensor.fault in Page(page[page.index('id="findings"') :]).text
    alone = replace(both, findings=(), reasons=texts[1:])
    assert reasons(alone) == [texts[1]]
    assert "Weights that are not the source" in render(alone)


def test_the_worst_case_has_many_positions() -> None:
    """What a score of positions give is chance."""
    report = made("faithful")
    first, few = report.cases[0], report.cases[3]
    assert first.figures
    assert few.figures

    def further(times: float) -> Report:
        figures = replace(few.figures, kl_mean=times * (first.figures.kl_mean or 0))  # type: ignore[type-var, union-attr]
        return replace(report, cases=(first, replace(few, figures=figures)))

    slightly, much = further(1.5), further(3.0)
    assert worst_case(slightly) is first
    assert "Figures of the case prompt : whole windows" in Page(render(slightly)).text
    assert "The other one is not twice as far from the source." in Page(render(slightly)).text
    assert worst_case(much) is much.cases[1]
    worse = replace(slightly, cases=(first, replace(slightly.cases[1], verdict="drifted")))
    assert worst_case(worse) is worse.cases[1]
    farther = replace(much, cases=(replace(first, verdict="drifted"), much.cases[1]))
    assert worst_case(farther) is farther.cases[0]
    assert "twice as far" not in Page(render(farther)).text


def test_findings_are_marked_where_layers_go_wrong() -> None:
    page = read("broken")
    marks = re.findall(r'class="marked"[^>]*>([^<]*)<', shown("broken"))
    assert marks == ["1", "2", "3"]
    one = replace(made("broken"), findings=made("broken").findings[:1])
    assert re.findall(r'class="marked"[^>]*>([^<]*)<', render(one)) == ["layer 3 · self_attn"]
    crowd = tuple(replace(one.findings[0], module=f"model.layers.{layer}") for layer in (7, 8, 9, 20, 20, 9, 9))
    marks = re.findall(r'class="marked"[^>]*>([^<]*)<', render(replace(one, findings=crowd)))
    assert marks == ["1", "3, 6 …", "4, 5"]
    assert "mark" in {found.get("class") for tag, found in page.elements if tag == "line"}


def test_tokens_that_differ_by_rounding_alone_are_not_listed() -> None:
    report, (word, *_) = made("faithful"), made("drifted").worst_tokens
    assert 'id="worst"' in render(replace(report, worst_tokens=(word,)))
    assert 'id="worst"' not in render(replace(report, worst_tokens=(replace(word, kl=4e-7),)))


def test_overflowing_logits_are_left_out_and_counted() -> None:
    report = made("classifier")
    page = Page(render(replace(report, logits=(*report.logits, (1e30, 2.0), (1.0, -1e30)))))
    assert "2 pairs are infinite or not numbers, and left out." in page.text
    assert "96 pairs from" in page.text
    assert 'id="calibration"' not in render(replace(report, logits=((1e30, 1e30),)))


def test_a_continuation_is_split_where_the_source_differs() -> None:
    page = shown("drifted")
    articles = [Page(part).text for part in re.findall(r"<article.*?</article>", page, re.DOTALL)]
    both = "The history of the city of London is a long"
    assert articles[0].startswith(f"{both} source ␣ one … artifact ␣ and complicated one, and begins ")
    assert "The first 9 of 32 tokens are the source’s; token 10 differs." in articles[0]
    assert "return fibonacci(n - 1)" in articles[1].replace("  ", " ")
    assert "artifact" not in articles[1]
    assert "token 22 differs, where the source itself was undecided within the noise." in articles[2]
    none = read("broken").text
    assert "The history of source ␣ the … artifact ␣ the the the the the" in none
    assert "The first of 32 tokens already differs." in none
    (second,) = (replace(found, agreed=1) for found in made("broken").continuations)
    text = Page(render(replace(made("broken"), continuations=(second,)))).text
    assert "The first of 32 tokens is the source’s; the second differs." in text


def test_a_continuation_is_split_between_characters() -> None:
    """The bytes of one character may come from two tokens; half of them read as U+FFFD."""
    found = Continuation("p", "ab鯨", 4, 3, agreed_text="ab\ufffd", wanted="\ufffd")
    assert parted(found) == ("ab", "鯨")
    assert parted(replace(found, text="ab", agreed_text="ab")) == ("ab", "")
    assert parted(replace(found, agreed=4)) == ("ab鯨", "")


def test_figures_without_meaning_for_a_task_have_no_columns() -> None:
    text = read("classifier").text
    assert "Same label" in text
    assert "KL divergence" not in text
    assert "erplexity" not in text
    assert "top-5" not in text
    assert "0 flips in 48" in text
    assert "A flip is a text where" in text
    assert "position" not in text


def test_a_refusal_is_shown_in_place_of_figures() -> None:
    report = made("faithful")
    assert f"Refused: {report.cases[-1].refused}" in Page(render(report)).text


def test_the_largest_model_makes_a_page_of_bounded_size() -> None:
    report = replace(made("drifted"), layers=reports.curve(64, lambda x: x + 0.01, 0.0))
    rng = random.Random(5)
    tensors = reports.quantized_tensors(64, rng)
    windows = reports.divergences(rng, 64, 2048, 0.01)
    many = replace(report, tensors=tensors, kl_by_position=windows, logits=reports.logits(rng, 20_000, 0.3))
    html = render(many)
    assert len(tensors) >= 64 * 7
    assert len(html.encode()) < 1_500_000
    assert html.count("<title>model.layers.63.mlp.down_proj: int") == 1
    assert Page(html).wrong == []


def test_zeros_and_single_values_can_be_drawn() -> None:
    """A copy without any difference has neither a greatest error nor a range of logits."""
    report = made("faithful")
    same = replace(
        report,
        layers=tuple(replace(layer, error=0.0) for layer in report.layers),
        kl_by_position=((0.0, 0.0, 0.0), (0.0,), ()),
        logits=((1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
    )
    assert Page(render(same)).wrong == []
    assert (
        Page(render(replace(same, layers=report.layers[:1], kl_by_position=((0.5,),), logits=((0.0, 0.0),)))).wrong
        == []
    )


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_texts_have_enough_contrast(theme: int) -> None:
    """WCAG 2.1 AA asks for a contrast of 4.5 (https://www.w3.org/TR/WCAG21/#contrast-minimum)."""
    css = (Path(page_module.__file__).parent / "report.css").read_text(encoding="utf-8")
    colours = {
        found[1]: (found[2], found[3])[theme] for found in re.finditer(r"--(\w+): light-dark\((\S+), (\S+)\)", css)
    }
    for name in ("ink", "quiet", "faithful", "drifted", "broken"):
        for ground in ("paper", "sheet"):
            assert _contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    on = {str(n): colours["ink"] for n in range(5)} | {str(n): colours["paper"] for n in (6, 7, 8)} | {"5": "#12100e"}
    for shade, text in on.items():
        assert _contrast(text, colours[f"h{shade}"]) >= 4.5, shade
    shades = [_luminance(colours[f"h{n}"]) for n in range(9)]
    assert shades == sorted(shades, reverse=theme == 0)
