"""The verbs that run an artifact: what they pass to the runtime, and how they print its results.

The runtime's objects are mocks with the signatures of the real ones; test_artifacts.py runs real ones.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import call, create_autospec

import intaglio.runtime
import numpy
import pytest
from intaglio.runtime import (
    Answer,
    Candidate,
    Classification,
    Embedder,
    Generation,
    QuestionAnswerer,
    Score,
    SequenceClassifier,
    Tag,
    TextGenerator,
    TokenClassifier,
    TokenLogprob,
)
from intaglio.runtime.text.tokenizer import Tokenizer
from intaglio.tests.cli.conftest import MakeArtifact, Run

MODELS: dict[str, type[Any]] = {
    "text-generation": TextGenerator,
    "text-classification": SequenceClassifier,
    "token-classification": TokenClassifier,
    "question-answering": QuestionAnswerer,
    "feature-extraction": Embedder,
}
NUMBERS: dict[str, int | float] = {
    "max_new_tokens": 5,
    "temperature": 0.5,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.1,
    "typical_p": 0.8,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.3,
    "no_repeat_ngram_size": 3,
    "min_new_tokens": 2,
    "max_time": 1.5,
    "num_beams": 4,
    "length_penalty": 0.7,
    "seed": 3,
}
UNSET = dict.fromkeys(NUMBERS) | dict.fromkeys(
    ("logit_bias", "stop", "json_schema", "regex", "grammar", "logprobs", "speculate")
)


@pytest.fixture
def load_mock(make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[Path, Any, Any]]:
    """Return an artifact folder of a task, a mock of the model that `load` returns for it, and a mock of `load`."""

    def make(task: str) -> tuple[Path, Any, Any]:
        folder = make_artifact(task=task)
        model = create_autospec(MODELS[task], instance=True)
        model.tokenizer = create_autospec(Tokenizer, instance=True)
        model.tokenizer.encode.return_value = []  # of an empty text
        load = create_autospec(intaglio.runtime.load, return_value=model)
        monkeypatch.setattr(intaglio.runtime, "load", load)
        return folder, model, load

    return make


LoadMock = Callable[[str], tuple[Path, Any, Any]]


def test_generate_streams(run: Run, load_mock: LoadMock) -> None:
    folder, model, load = load_mock("text-generation")
    model.stream.return_value = iter([" of", " the\n", "city"])
    result = run("generate", folder, "The history")
    assert (result.exit_code, result.stdout, result.stderr) == (0, " of the\ncity\n", "")
    model.stream.assert_called_once_with("The history", **UNSET)
    load.assert_called_once_with(
        folder, task="text-generation", device="cpu", threads=None, kv_cache="exact", precision=None
    )


@pytest.mark.parametrize(("options", "longest"), [(("--max-new-tokens", 100), 103), ((), None)])
def test_generate_says_which_kv_cache_was_chosen(
    run: Run, load_mock: LoadMock, options: tuple[object, ...], longest: int | None
) -> None:
    folder, model, load = load_mock("text-generation")
    model.stream.return_value = iter(["x"])
    model.session.cache_dtype, model.session.kv_cache_reason = "float32", "this reason"
    result = run("generate", folder, "abc", "--kv-cache", "auto", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "x\n", "KV cache: float32, for this reason\n")
    load.assert_called_once_with(
        folder,
        task="text-generation",
        device="cpu",
        threads=None,
        kv_cache="auto",
        precision=None,
        max_length=longest,
    )


def test_generate_passes_every_option_on(run: Run, load_mock: LoadMock) -> None:
    folder, model, load = load_mock("text-generation")
    model.generate.return_value = Generation(" ü", (7, 8), (1, 2, 3), "stop")
    numbers = [part for name, value in NUMBERS.items() for part in (f"--{name.replace('_', '-')}", value)]
    result = run(
        *(
            "generate",
            folder,
            "-",
            *numbers,
            "--logit-bias",
            "42=-5",
            "--logit-bias",
            "7=1e1",
            "--stop",
            "\n",
            "--stop",
            "END",
            "--threads",
            2,
            "--kv-cache",
            "int8",
            "--json",
        ),
        stdin="two\nlines\n",
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "text": " ü",
        "token_ids": [7, 8],
        "prompt_token_ids": [1, 2, 3],
        "finish_reason": "stop",
    }
    model.generate.assert_called_once_with(
        "two\nlines",
        **dict.fromkeys(("json_schema", "regex", "grammar", "logprobs", "speculate")),
        **NUMBERS,
        logit_bias={"42": -5.0, "7": 10.0},
        stop=("\n", "END"),
    )
    load.assert_called_once_with(
        folder, task="text-generation", device="cpu", threads=2, kv_cache="int8", precision=None
    )
    wrong = run("generate", folder, "x", "--logit-bias", "a=1")
    assert (wrong.exit_code, "'a=1' is not ID=BIAS; write it like 42=-5." in wrong.stderr) == (2, True)


def test_generate_returns_several_as_json(run: Run, load_mock: LoadMock, tmp_path: Path) -> None:
    folder, model, load = load_mock("text-generation")
    refused = run("generate", folder, "x", "--num-return-sequences", 2)
    assert refused.stderr == "Error: --num-return-sequences needs JSON output; add --json\n"
    model.generate.return_value = [Generation("a", (7,), (1,), "eos", score=-0.5), Generation("b", (8,), (1,), "eos")]
    settings = tmp_path / "own.json"
    options = ("--num-return-sequences", 2, "--num-beams", 2, "--generation-config", settings)
    printed = json.loads(run("generate", folder, "x", *options, "--json").stdout)
    assert [one["text"] for one in printed] == ["a", "b"]
    assert (printed[0]["score"], "score" in printed[1]) == (-0.5, False)
    model.generate.assert_called_once_with("x", num_return_sequences=2, **UNSET | {"num_beams": 2})
    load.assert_called_once_with(
        folder,
        task="text-generation",
        device="cpu",
        threads=None,
        kv_cache="exact",
        precision=None,
        generation_config=settings,
    )


def test_generate_speculates_with_a_draft_or_without(run: Run, load_mock: LoadMock) -> None:
    folder, model, load = load_mock("text-generation")
    model.stream.side_effect = lambda *_, **__: iter(["7"])
    assert run("generate", folder, "x", "--draft", folder, "--threads", 3).stdout == "7\n"
    model.stream.assert_called_with("x", **UNSET | {"draft": model})
    assert (
        load.mock_calls
        == [call(folder, task="text-generation", device="cpu", threads=3, kv_cache="exact", precision=None)] * 2
    )
    for option, value in (("--speculate", True), ("--no-speculate", False)):
        assert run("generate", folder, "x", option).exit_code == 0
        model.stream.assert_called_with("x", **UNSET | {"speculate": value})
    other = run("generate", folder, "x", "--draft", folder.parent / "none")
    assert other.exit_code == 2
    assert str(folder.parent / "none") in other.stderr


def test_generate_reads_schemas_and_grammars_from_files(run: Run, load_mock: LoadMock, tmp_path: Path) -> None:
    folder, model, _ = load_mock("text-generation")
    model.stream.side_effect = lambda *_, **__: iter(["7"])
    (tmp_path / "form").write_text('{"const": "ü"}\n', encoding="utf-8")
    for option, name in (("--json-schema", "json_schema"), ("--grammar", "grammar")):
        assert run("generate", folder, "x", option, tmp_path / "form").stdout == "7\n"
        model.stream.assert_called_with("x", **UNSET | {name: '{"const": "ü"}\n'})
        assert run("generate", folder, "x", option, "-", stdin="{}").exit_code == 0
        model.stream.assert_called_with("x", **UNSET | {name: "{}"})
        missing = run("generate", folder, "x", option, tmp_path / "none")
        assert (missing.exit_code, missing.stderr) == (
            2,
            f"Error: {tmp_path}/none: no such file; give one that exists, or - for standard input\n",
        )
    twice = run("generate", folder, "-", "--grammar", "-", stdin="x")
    assert (twice.exit_code, twice.stderr) == (
        2,
        "Error: only one of PROMPT, --json-schema and --grammar can read standard input; give files for the others\n",
    )
    run("generate", folder, "x", "--regex", "[0-9]+")
    model.stream.assert_called_with("x", **UNSET | {"regex": "[0-9]+"})


def test_generate_prints_log_probabilities_as_json(run: Run, load_mock: LoadMock) -> None:
    folder, model, load = load_mock("text-generation")
    refused = run("generate", folder, "x", "--logprobs", 2)
    assert (refused.exit_code, refused.stderr) == (2, "Error: --logprobs needs JSON output; add --json\n")
    load.assert_not_called()
    entry = TokenLogprob(7, "é", -0.5, (Candidate(7, "é", -0.5), Candidate(8, "b", -1.5)))
    model.generate.return_value = Generation("é", (7,), (1,), "eos", (entry,))
    printed = json.loads(run("generate", folder, "x", "--logprobs", 2, "--json").stdout)
    assert printed["logprobs"] == [
        {
            "token_id": 7,
            "text": "é",
            "logprob": -0.5,
            "top": [{"token_id": 7, "text": "é", "logprob": -0.5}, {"token_id": 8, "text": "b", "logprob": -1.5}],
        }
    ]
    model.generate.assert_called_once_with("x", **UNSET | {"logprobs": 2})


def test_score(run: Run, load_mock: LoadMock) -> None:
    folder, model, _ = load_mock("text-generation")
    model.score.return_value = Score((1,), (7, 8), (" é", "\n"), (-0.5, -2.25), False)
    result = run("score", folder, "ü é")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "7\t-0.5000\t é\n8\t-2.2500\t\\n\n", "")
    assert model.score.call_args == call("ü é", context=None, window=None, stride=None)
    printed = json.loads(
        run(
            "score", folder, "-", "--context", "be fore ", "--window", 9, "--stride", 4, "--json", stdin="a\nb\n"
        ).stdout
    )
    assert printed == {
        "context_token_ids": [1],
        "token_ids": [7, 8],
        "tokens": [" é", "\n"],
        "logprobs": [-0.5, -2.25],
        "is_greedy": False,
        "total": -2.75,
        "perplexity": pytest.approx(numpy.exp(2.75 / 2)),
    }
    assert model.score.call_args == call("a\nb", context="be fore ", window=9, stride=4)
    run("score", folder, "a", "--context", "-", stdin="from here\n")
    assert model.score.call_args == call("a", context="from here", window=None, stride=None)
    both = run("score", folder, "-", "--context", "-", stdin="x")
    assert (both.exit_code, both.stderr) == (
        2,
        "Error: TEXT and --context cannot both read standard input; give the text of one of them\n",
    )


def test_score_colours_surprise_on_a_terminal(
    run: Run, load_mock: LoadMock, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, model, _ = load_mock("text-generation")
    model.score.return_value = Score((1,), (7, 8, 9), ("sure", "[b]odd", "\x1b[2J"), (-0.1, -20.0, -3.0), False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("intaglio.cli.verbs.score.on_terminal", lambda: True)
    shown = run("score", folder, "x").stdout
    assert "\x1b[32msure" in shown
    assert "\x1b[1;31m[b]odd" in shown
    assert "\x1b[33m\\e[2J" in shown  # the terminal does not execute escapes in a text
    assert "\x1b[2J" not in shown
    assert "3 tokens, total -23.1000, perplexity 2,208.3480" in shown


def test_classify(run: Run, load_mock: LoadMock) -> None:
    folder, model, _ = load_mock("text-classification")
    found = [Classification("good", 0.75, {"bad": 0.25, "good": 0.75}), Classification("bad", 1.0, {"bad": 1.0})]
    model.return_value = found
    assert run("classify", folder, "fine", "poor\tone").stdout == "good\t0.7500\tfine\nbad\t1.0000\tpoor\\tone\n"
    default: dict[str, Any] = {"text_pairs": None, "function_to_apply": None, "top_k": None, "truncation": False}
    assert model.call_args == call(["fine", "poor\tone"], **default)
    parsed = json.loads(run("classify", folder, "-", "--json", "--truncate", stdin="fine\n\npoor\n").stdout)
    assert parsed[0] == {"text": "fine", "label": "good", "score": 0.75, "scores": {"bad": 0.25, "good": 0.75}}
    assert parsed[1] == {"text": "", "label": None, "score": None, "scores": None}
    assert parsed[2]["text"] == "poor"
    assert model.call_args == call(["fine", "poor"], **default | {"truncation": True})
    lines = run("classify", folder, "-", stdin="\nfine\u2028one\npoor").stdout
    assert lines == "\t\t\ngood\t0.7500\tfine\u2028one\nbad\t1.0000\tpoor\n"
    result = run("classify", folder, "a", "b", "--query", "q", "--top-k", 2, "--function", "none")
    assert result.stdout == "bad\t0.2500\ta\ngood\t0.7500\ta\nbad\t1.0000\tb\n"
    assert model.call_args == call("q", **default | {"text_pairs": ["a", "b"], "function_to_apply": "none", "top_k": 2})


def test_tag(run: Run, load_mock: LoadMock) -> None:
    folder, model, _ = load_mock("token-classification")
    model.return_value = [[], [Tag("PER", 0.9, "Ada", 0, 3), Tag("LOC", 0.8, "Rome", 7, 11)]]
    result = run("tag", folder, "x", "Ada in Rome")
    assert result.stdout == "1\tPER\t0.9000\t0\t3\tAda\n1\tLOC\t0.8000\t7\t11\tRome\n"
    assert model.call_args == call(["x", "Ada in Rome"], aggregate=False, truncation=False)
    shifted = result.stdout.replace("1\tPER", "2\tPER").replace("1\tLOC", "2\tLOC")
    assert run("tag", folder, "-", stdin="\nx\nAda in Rome\n").stdout == shifted
    parsed = json.loads(run("tag", folder, "x", "Ada in Rome", "--aggregate", "--json").stdout)
    assert parsed[0] == {"text": "x", "tags": []}
    assert parsed[1]["tags"][1] == {"label": "LOC", "score": 0.8, "text": "Rome", "start": 7, "end": 11}
    assert model.call_args == call(["x", "Ada in Rome"], aggregate=True, truncation=False)
    assert run("tag", folder, "x", "Ada in Rome", "--aggregation", "max").exit_code == 0
    assert model.call_args == call(["x", "Ada in Rome"], aggregate="max", truncation=False)
    assert "exclude each other" in run("tag", folder, "x", "--aggregate", "--aggregation", "max").stderr


def test_answer(run: Run, load_mock: LoadMock, tmp_path: Path) -> None:
    folder, model, _ = load_mock("question-answering")
    model.return_value = [Answer("in Pisa", 0.5, 17, 24)]
    (tmp_path / "context.txt").write_text("The tower stands in Pisa\n")
    asked = ("answer", folder, "--question", "Where?", "--context", f"@{tmp_path}/context.txt")
    assert run(*asked).stdout == "0.5000\t17\t24\tin Pisa\n"
    assert model.call_args == call("Where?", "The tower stands in Pisa", top_k=1, align_to_words=False)
    parsed = json.loads(run(*asked, "--top-k", 3, "--align-to-words", "--json").stdout)
    assert parsed == [{"text": "in Pisa", "score": 0.5, "start": 17, "end": 24}]
    assert model.call_args == call("Where?", "The tower stands in Pisa", top_k=3, align_to_words=True)


def test_embed(run: Run, load_mock: LoadMock, tmp_path: Path) -> None:
    folder, model, _ = load_mock("feature-extraction")
    vectors = numpy.array([[0.5, -1e-9], [1 / 3, 2.0]], numpy.float32)
    model.return_value = vectors
    assert run("embed", folder, "a", "b").stdout == "0.5\t-1e-09\n0.3333333\t2\n"
    default = {"prompt": None, "prompt_name": None, "pooling": None, "normalize": None, "truncation": False}
    assert model.call_args == call(["a", "b"], **default)
    assert run("embed", folder, "-", stdin="a\n\nb\n").stdout == "0.5\t-1e-09\n\n0.3333333\t2\n"
    assert json.loads(run("embed", folder, "-", "--json", stdin="a\n\nb\n").stdout)[1] == {"text": "", "vector": None}
    assert run("embed", folder, "-", "--npy", tmp_path / "lines.npy", stdin="a\n\nb\n").exit_code == 0
    numpy.testing.assert_array_equal(numpy.load(tmp_path / "lines.npy"), [vectors[0], [numpy.nan] * 2, vectors[1]])
    assert run("embed", folder, "a", "b", "--prompt-name", "query", "--prompt", "x").exit_code == 0
    assert model.call_args == call(["a", "b"], **default | {"prompt": "x", "prompt_name": "query"})
    parsed = json.loads(run("embed", folder, "a", "b", "--json", "--pooling", "mean", "--no-normalize").stdout)
    assert parsed == [{"text": text, "vector": row} for text, row in zip("ab", vectors.tolist(), strict=True)]
    assert model.call_args == call(["a", "b"], **default | {"pooling": "mean", "normalize": False})
    result = run("embed", folder, "a", "b", "--npy", tmp_path / "v.npy")
    assert result.stdout == ""
    assert (numpy.load(tmp_path / "v.npy") == vectors).all()


def test_embed_into_a_folder_that_does_not_exist(run: Run, load_mock: LoadMock, tmp_path: Path) -> None:
    folder, model, _ = load_mock("feature-extraction")
    model.return_value = numpy.zeros((1, 2), numpy.float32)
    result = run("embed", folder, "a", "--npy", tmp_path / "none" / "v.npy")
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: {tmp_path}/none/v.npy: cannot be written (No such file or directory); choose another --npy\n",
    )


@pytest.mark.parametrize(
    ("task", "arguments", "verb"),
    [
        ("text-classification", ("generate", "{}", "text"), "classify"),
        ("text-generation", ("classify", "{}", "text"), "generate"),
        ("question-answering", ("tag", "{}", "text"), "answer"),
        ("feature-extraction", ("answer", "{}", "--question", "q", "--context", "c"), "embed"),
        ("token-classification", ("embed", "{}", "text"), "tag"),
    ],
)
def test_an_artifact_of_another_task_names_its_verb(
    run: Run, load_mock: LoadMock, task: str, arguments: tuple[str, ...], verb: str
) -> None:
    folder, _, load = load_mock(task)
    result = run(*(argument.format(folder) for argument in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {folder} is a {task} artifact; run it with `intaglio {verb} {folder}`\n"
    load.assert_not_called()


def test_a_checkpoint_in_the_place_of_an_artifact(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    result = run("generate", tmp_path, "text")
    assert result.exit_code == 2
    assert "it has no intaglio.json; make one with `intaglio export`" in result.stderr
