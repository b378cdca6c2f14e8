"""A slice of the fuzzer: hostile requests are answered with 4xx, and the server holds nothing of them afterwards.

``python -m intaglio.tests.serving.fuzz`` sends more.
"""

from collections import Counter
from pathlib import Path

import pytest
from intaglio.tests.serving.fuzz.cases import Case
from intaglio.tests.serving.fuzz.drive import Held, differences, fuzz, judge
from intaglio.tests.serving.fuzz.forms import forms, paths
from intaglio.tests.serving.raw import Answer


def test_the_form_of_every_endpoint_that_is_posted_to_is_known() -> None:
    assert sorted(forms()) == sorted(paths("POST"))


def test_hostile_requests(artifacts: dict[str, Path], heads: dict[str, Path]) -> None:
    report = fuzz(artifacts | heads, cases=60, seed=20)
    assert report.findings == [], report.text()
    assert report.statuses["400"] > 20


@pytest.mark.slow
def test_a_thousand_hostile_requests(artifacts: dict[str, Path], heads: dict[str, Path]) -> None:
    report = fuzz(artifacts | heads, cases=1000, seed=21)
    assert report.findings == [], report.text()


def test_the_judge_finds_what_is_wrong() -> None:
    wrong = Case("a", ())
    error = b'{"error": {"message": "a", "type": "b", "param": null, "code": null}}'
    assert judge(wrong, Answer(400, {}, error)) is None
    assert judge(wrong, Answer(400, {}, b"Bad Request")) == "not an error in OpenAI's form: 400 b'Bad Request'"
    assert judge(wrong, Answer(500, {}, error)) is not None
    assert judge(wrong, Answer(200, {}, b"{}")) == "success: 200 b'{}'"
    assert judge(wrong, Answer(0, {}, b"")) == "the connection was closed without an answer"
    assert judge(wrong, "hang") == "hang"
    assert judge(wrong._replace(may_close=True), Answer(0, {}, b"")) is None
    assert judge(wrong._replace(fails=False), Answer(200, {}, b"{}")) is None
    assert judge(wrong._replace(fails=False), Answer(200, {}, b'data: {"error": {"type": "server_error"')) is not None


def test_growth_is_found() -> None:
    before = Held(0, 0, Counter(socket=3), Counter(python=6), 100_000_000)
    assert differences(before, before._replace(memory=150_000_000)) == []
    after = Held(1, 0, Counter(socket=5), Counter(python=6, other=1), 300_000_000)
    assert differences(before, after) == [
        "running grew from 0 to 1",
        "memory grew from 100,000,000 to 300,000,000",
        "files: 2 more of socket",
        "threads: 1 more of other",
    ]
