"""What is wrong with a body is answered with 4xx and a message that says what."""

import json

import pytest
from intaglio.serving.http.bodies import MAX_VALUES, parse
from intaglio.tests.serving.raw import exchange, post


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON: Expecting value at line 1, column 1"),
        (b"{", "the body is not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        (b'{"text": "a"} x', "the body is not JSON: Extra data at line 1, column 15"),
        (b'{"text": "a\nb"}', "the body is not JSON: Invalid control character at at line 1, column 12"),
        (b"\xef\xbb\xbf{}", "the body is not JSON: Unexpected UTF-8 BOM (decode using utf-8-sig) at line 1, column 1"),
        (b'{"text": "\xff"}', "the body is not UTF-8: the byte at 10 is wrong"),
        ('{"text": "é"}'.encode("utf-16"), "the body is not UTF-8: the byte at 0 is wrong"),
        (b'{"text": "\\ud800"}', "the body cannot be read: a string has \\ud800, which is half of a character"),
        (b'{"text": "a", "text": "b"}', "the body cannot be read: the key 'text' is given twice"),
        (b'{"numbers": [NaN]}', "the body cannot be read: NaN is not a number of JSON"),
        (b'{"numbers": [-Infinity]}', "the body cannot be read: -Infinity is not a number of JSON"),
        (b'{"numbers": [%s]}' % (b"9" * 5000), "the body cannot be read: a number has 5,000 digits"),
        (b"[" * 200_001, "the body has about 200,001 values and may have 200,000; send several requests"),
        (b"[" * 100_000, "the body cannot be read: it is nested deeper than 100 levels"),
        (b'{"a":' * 150 + b"0" + b"}" * 150, "the body cannot be read: it is nested deeper than 100 levels"),
        (
            b"[" + b"[]," * 150_000 + b"0]",
            "the body has about 300,001 values and may have 200,000; send several requests",
        ),
        (b"[]", "the body is not a JSON object"),
        (b'"text"', "the body is not a JSON object"),
    ],
)
def test_a_bad_body_is_400(plain: str, body: bytes, message: str) -> None:
    answer = exchange(plain, post("/echo", body))
    assert answer.status == 400
    assert answer.error() == {"message": message, "type": "invalid_request_error", "param": None, "code": None}


def test_commas_in_a_text_are_no_values() -> None:
    text = '\\",[{' * MAX_VALUES
    assert parse(json.dumps({"text": text}).encode()) == {"text": text}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("", "the header Content-Type is missing; send application/json"),
        ("text/plain", "the header Content-Type is 'text/plain'; send application/json"),
        ("application/jsonx", "the header Content-Type is 'application/jsonx'; send application/json"),
        ("application/json; charset=latin-1", "is 'application/json; charset=latin-1'; send application/json"),
        ("application/x-www-form-urlencoded", "is 'application/x-www-form-urlencoded'; send application/json"),
    ],
)
def test_another_type_is_415(plain: str, kind: str, message: str) -> None:
    answer = exchange(plain, post("/echo", b"{}", kind=kind))
    assert answer.status == 415
    assert message in answer.error()["message"]


def test_json_in_utf_8_is_taken_with_and_without_its_name(plain: str) -> None:
    for kind in ("application/json", 'Application/JSON; charset="UTF-8"', "application/json;"):
        assert exchange(plain, post("/echo", b'{"text": "abc"}', kind=kind)).status == 200


def test_a_compressed_body_is_415(plain: str) -> None:
    answer = exchange(plain, post("/echo", b"{}", "Content-Encoding: gzip"))
    assert answer.status == 415
    assert answer.error()["message"] == "the header Content-Encoding is 'gzip'; send the body as it is"


def test_a_list_of_wrong_items_is_one_error(plain: str) -> None:
    answer = exchange(plain, post("/echo", json.dumps({"numbers": ["a"] * 100_000}).encode()))
    assert answer.status == 400
    assert answer.error()["param"] == "numbers[0]"


def test_a_long_unknown_key_is_cut_in_the_message(plain: str) -> None:
    answer = exchange(plain, post("/echo", json.dumps({"k" * 100_000: 1}).encode()))
    assert answer.status == 400
    assert answer.error()["param"] == "k" * 60 + "..."
