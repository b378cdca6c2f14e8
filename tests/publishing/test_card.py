"""The model card: what it says, and what names and texts from anyone may not do to it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from intaglio.artifact import (
    MANIFEST,
    FileEntry,
    Manifest,
    Parity,
    Source,
    SourceAdapter,
    SourceCard,
    read_manifest,
    sha256_file,
)
from intaglio.errors import UsageError
from intaglio.publishing import preview
from intaglio.publishing.card import escape, figure, percent, size
from intaglio.publishing.snippets import runtimes
from markdown_it import MarkdownIt

NAME = "org/tiny-ONNX"
FIGURES = {
    "positions": 768,
    "max_difference": 3.79,
    "top1": 0.826,
    "kl_mean": 0.0479,
    "perplexity": 496.2,
    "source_perplexity": 598.3,
}
REPORT = {
    "text": "the text that comes with intaglio: 4 windows of 192 tokens",
    "date": "2026-11-28T20:55:33+00:00",
    "reasons": [f"reason {index}" for index in range(7)],
    "cases": [{"figures": None}, {"figures": FIGURES}],
    "continuations": [{"tokens": 32, "agreed": 32}, {"tokens": 32, "agreed": 16}],
}
BENCH = {
    "artifact": "/home/somebody/out",
    "family": "qwen2",
    "task": "text-generation",
    "precision": "int4",
    "target": "ort",
    "machine": "x86_64, Linux",
    "onnxruntime": "1.32.0",
    "device": "cpu",
    "threads": 1,
    "prompt_tokens": 512,
    "prefill_tokens_per_second": {"median": 1234.5, "least": 1.0, "most": 2.0},
    "decode_tokens_per_second": {"median": 58.31, "least": 1.0, "most": 2.0},
    "peak_rss_bytes": 91_300_000,
}


def artifact(int4: Path, to: Path, *, report: Any = None, **fields: Any) -> Path:
    """Write the manifest of an artifact with other fields, and a report; the card needs no more."""
    to.mkdir()
    manifest: Manifest = replace(read_manifest(int4), **fields)
    if report is not None:
        (to / "parity.json").write_text(json.dumps(report))
        entry = FileEntry(sha256_file(to / "parity.json"), (to / "parity.json").stat().st_size)
        manifest = replace(manifest, files={**manifest.files, "parity.json": entry})
    (to / MANIFEST).write_text(manifest.to_json())
    return to


def test_the_figures_of_the_report_and_the_speed(int4: Path, tmp_path: Path) -> None:
    folder = artifact(int4, tmp_path / "out", report=REPORT, parity=Parity("drifted"))
    (tmp_path / "bench.json").write_text(json.dumps(BENCH))
    card = preview(folder, NAME, bench=tmp_path / "bench.json")
    for line in (
        f"**int4: drifted**, over 768 positions of {REPORT['text']} (2026-11-28).",
        "| same most likely token | 82.6 % |",
        "| mean KL divergence from the source, nats | 0.0479 |",
        "| perplexity (the source's) | 496 (598) |",
        "| largest difference of an output | 3.79 |",
        "| greedy continuations equal to the last token | 1 of 2 |",
        "- reason 4",
        "- and 2 more",
        "| int4 | 1,234 tokens/s of 512 | 58.3 tokens/s | 91.3 MB "
        "| x86_64, Linux, cpu, 1 thread, ONNX Runtime 1.32.0 |",
        "That of the source: exaone, in the file `LICENSE`.",
    ):
        assert line in card.splitlines(), line
    assert "somebody" not in card


def test_what_was_not_checked_and_a_report_that_cannot_be_read(int4: Path, tmp_path: Path) -> None:
    assert "**int4: not checked**." in preview(artifact(int4, tmp_path / "plain"), NAME)
    for index, report in enumerate(([], {"cases": "many"}, {**REPORT, "cases": [{"figures": {"top1": "all"}}]})):
        folder = artifact(int4, tmp_path / str(index), report=report, parity=Parity("faithful"))
        assert "**int4: faithful**." in preview(folder, NAME)


HOSTILE = (
    "x](http://evil.example) <script>alert(1)</script> | `rm` *b* _i_ @all\n# Title\n---\nlicense: mit\n"
    "\u202e www.evil.example"
)


def test_texts_from_anyone_stay_texts(int4: Path, tmp_path: Path) -> None:
    report = {**REPORT, "text": HOSTILE, "date": HOSTILE, "reasons": [HOSTILE]}
    folder = artifact(
        int4,
        tmp_path / "out",
        report=report,
        parity=Parity("drifted"),
        source=Source(HOSTILE, HOSTILE, HOSTILE, SourceCard(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,))),
        notes=(HOSTILE,),
        tools={HOSTILE: HOSTILE},
    )
    card = preview(folder, NAME)
    plain = preview(artifact(int4, tmp_path / "plain", report=REPORT, parity=Parity("drifted"), notes=("n",)), NAME)
    body = card.split("\n---\n", 1)[1]
    tokens = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").parse(body)
    inline = [child.type for token in tokens for child in token.children or ()]
    assert "link_open" not in inline
    assert "html_inline" not in inline
    headings = [line for line in body.splitlines() if line.startswith("#")]
    assert headings == [line for line in plain.splitlines() if line.startswith("#")]
    data = vars(ModelCard(card).data)
    assert (data["base_model"], data["license_link"], data["license_name"]) == (None, None, None)
    assert data["license"] in (None, HOSTILE)
    assert sorted(data["tags"]) == sorted(vars(ModelCard(plain).data)["tags"])


def test_a_source_of_the_hub_is_linked(int4: Path, tmp_path: Path) -> None:
    card = SourceCard("apache-2.0", None, "LICENSE", ())
    source = Source("Qwen/Qwen2-0.5B", "c" * 40, "d" * 64, card)
    files = {name: entry for name, entry in read_manifest(int4).files.items() if name != "LICENSE"}
    text = preview(artifact(int4, tmp_path / "out", source=source, files=files), NAME)
    assert "[Qwen/Qwen2-0.5B](https://huggingface.co/Qwen/Qwen2-0.5B) as ONNX, with 4-bit weights." in text
    assert (
        f"That of the source: apache-2.0, https&#58;//huggingface.co/Qwen/Qwen2-0.5B/blob/{'c' * 40}/LICENSE." in text
    )
    data = vars(ModelCard(text).data)
    assert (data["base_model"], data["license"], data["license_link"]) == ("Qwen/Qwen2-0.5B", "apache-2.0", None)
    with pytest.raises(
        UsageError, match=r"^Qwen2 is not a hub id; give the source's, such as Qwen/Qwen2-0\.5B-Instruct$"
    ):
        preview(int4, NAME, base_model="Qwen2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"precision": "int8"},
            "is of another artifact: precision is 'int8', not 'int4'; write it with `intaglio bench",
        ),
        (
            {"threads": None},
            "machine is 'x86_64, Linux', expected a text, beside device, threads and onnxruntime; write",
        ),
        ({"prefill_tokens_per_second": None, "decode_tokens_per_second": None}, "decode_tokens_per_second is missing"),
        ({"decode_tokens_per_second": {"median": "fast"}}, "median is 'fast', expected a number"),
    ],
)
def test_a_bench_record_of_something_else(int4: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(BENCH | change))
    with pytest.raises(UsageError) as raised:
        preview(int4, NAME, bench=tmp_path / "bench.json")
    assert message in str(raised.value)


def test_a_bench_record_that_is_not_there(int4: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"bench\.json: there is no such file; write it with `intaglio bench ARTIFACT"):
        preview(int4, NAME, bench=tmp_path / "bench.json")


def test_adapters_are_named(int4: Path, tmp_path: Path) -> None:
    merged = (
        SourceAdapter("Org/adapter", "b" * 40, "d" * 64, 1.0),
        SourceAdapter("<b>own</b>", None, "e" * 64, 0.5),
    )
    source = Source("Qwen/Qwen2-0.5B", "a" * 40, "c" * 64, adapters=merged)
    card = preview(artifact(int4, tmp_path / "out", source=source), NAME)
    data = vars(ModelCard(card).data)
    assert (data["base_model"], data["base_model_relation"]) == (["Qwen/Qwen2-0.5B", "Org/adapter"], "merge")
    text = "".join(MarkdownIt().render(card).split("\n"))
    assert (
        "Merged into its weights: the adapter Org/adapter, the adapter &lt;b&gt;own&lt;/b&gt; with the weight 0.5."
        in text
    )


def test_numbers_for_readers() -> None:
    assert [size(count) for count in (0, 512, 999, 1000, 1_049_000, 1_980_000_000)] == [
        "0 B",
        "512 B",
        "999 B",
        "1 kB",
        "1.05 MB",
        "1.98 GB",
    ]
    assert [percent(share) for share in (None, 0.0, 0.00001, 0.5, 0.9999, 1.0)] == [
        "–",
        "0.0 %",
        "< 0.1 %",
        "50.0 %",
        "> 99.9 %",
        "100.0 %",
    ]
    assert [figure(value) for value in (None, 0.04789, 12345.6)] == ["–", "0.0479", "12,346"]
    assert escape("a_b: 1.5 (x-y)") == "a_b: 1.5 (x-y)"


def test_a_runtime_that_cannot_run_it_is_left_out(int4: Path) -> None:
    manifest = read_manifest(int4)
    with_genai = replace(manifest, files={**manifest.files, "genai_config.json": FileEntry("", 0)})
    everything = ["intaglio", "onnxruntime-genai", "transformers.js", "optimum", "onnxruntime"]
    assert runtimes(with_genai, "int4") == everything
    assert "onnxruntime-genai" not in runtimes(with_genai, "int8")
    half = replace(manifest, model=replace(manifest.model, cache_dtype="bfloat16"))
    assert not {"transformers.js", "onnxruntime"} & set(runtimes(half, "int4"))
