"""The local tasks: items that are what they say, completions that are run with limits, and the page."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from intaglio.benchmarks import tasks
from intaglio.benchmarks.harness.records import Key, Records
from intaglio.benchmarks.harness.tasks.functions import passes, problems
from intaglio.benchmarks.harness.tasks.next_sentence import CHOICES, next_sentences
from intaglio.benchmarks.pages import tasks_page

SUBJECTS = ("engraver", "printer", "paper", "copper plate", "press", "wax", "needle", "acid bath")


def article(title: str) -> str:
    lines = [
        " ".join(f"The {subject} of {title} was seen in the year {1700 + 10 * line + place} ." for place in range(4))
        for line, subject in enumerate(SUBJECTS)
    ]
    return f" = {title} = \n \n = = A part = = \n " + " \n ".join(lines) + " \n"


def test_choices_are_sentences_of_the_same_article_and_one_of_them_follows() -> None:
    text = article("Harlem") + article("Parma")
    items = next_sentences(text, 12)
    assert items == next_sentences(text, 12)
    assert items != next_sentences(text, 12, seed=1)
    for item in items:
        context, choices, label = str(item["context"]), list(item["choices"]), item["label"]  # type: ignore[call-overload]
        assert len(set(choices)) == CHOICES
        assert [f"{context}{choice}" in text for choice in choices].index(True) == label
        assert sum(f"{context}{choice}" in text for choice in choices) == 1
        title = "Harlem" if "Harlem" in context else "Parma"
        assert all(title in choice for choice in choices)
    assert len({item["label"] for item in items}) > 1  # the right one is not always in the same place
    with pytest.raises(ValueError, match="the text has 32 sentences to choose, and 1000 are wanted"):
        next_sentences(text, 1000)


def test_problems_are_complete() -> None:
    found = problems()
    assert len({one["name"] for one in found}) == len(found) == 50
    for one in found:
        assert one["prompt"].startswith(f"def {one['name']}(")
        assert len(one["tests"]) > 1
        assert not passes(one["prompt"], "    return None\n", one["tests"]), one["name"]
        for test in one["tests"]:
            compile(test, one["name"], "eval")


HEAD = "def twice(x):\n"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("    return 2 * x\n", True),
        ("    return x\n", False),
        ("    return 2 *\n", False),
        ("    return '\0'\n", False),
        ("    import sys\n    sys.exit(1)\n", False),
        ("    return len('x' * 2**31) and 2 * x\n", False),
        ("    with open('file', 'w') as file:\n        file.write('x' * 100)\n    return 2 * x\n", False),
    ],
)
def test_completions_are_run_with_limits(completion: str, expected: bool) -> None:
    assert passes(HEAD, completion, ["twice(2) == 4"]) is expected


def test_a_completion_without_an_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.benchmarks.harness.tasks.functions.SECONDS", 1)
    assert not passes(HEAD, "    while True:\n        pass\n", ["twice(2) == 4"])


def test_the_page_has_shares_with_their_errors(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    figures = {"choices": 500, "next_sentence": 0.5, "next_sentence error": 0.02}
    records.add(Key("tasks", "int4", "text", 0), {**figures, "functions": 0.8, "functions error": 0.05})
    records.add(Key("classified", "int4", "dev", 0), {"sentences": 872, "accuracy": 0.9, "accuracy error": 0.01})
    body = tasks_page.body(records, 2)
    assert "| int4 | text | 500 | 50.0 ± 2.0 % | 80.0 ± 5.0 % |" in body
    assert "| int4 | dev | 872 | 90.0 ± 1.0 % |" in body
    tasks_page.write(tmp_path, body)
    assert body in (tmp_path / "tasks.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--artifact", "a=nowhere", "--text", "README.md"], "there is no artifact; make it first"),
        (["--artifact", "a={folder}"], "--artifact needs --text: the file whose sentences are to be chosen"),
        (["--classifier", "a={folder}"], "--classifier needs --sentences: a file with a sentence and its label"),
    ],
)
def test_options_that_do_not_fit(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "intaglio.json").write_text("{}")
    root = Path(__file__).parents[2]
    given = [one.format(folder=tmp_path).replace("README.md", str(root / "README.md")) for one in arguments]
    result = CliRunner().invoke(tasks.main, ["--scratch", str(tmp_path), *given])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
