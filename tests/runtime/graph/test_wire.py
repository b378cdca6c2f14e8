"""The protobuf wire format, against the onnx package and against bytes that are not messages."""

import onnx
import pytest
from intaglio.runtime.graph.wire import delimited, edit, fields, integer, integers, read_varint, texts, varint
from onnx import helper


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**31, 2**63 - 1, 2**64 - 1])
def test_varints_round_trip(number: int) -> None:
    assert read_varint(b"x" + varint(number) + b"y", 1) == (number, 1 + len(varint(number)))


def test_an_edited_message_equals_that_of_onnx() -> None:
    node = helper.make_node("Op", ["a", "b"], ["c"], name="node", size=-1, other=3, scale=0.5, text="x" * 200)
    found = {texts(attribute, 1)[0]: integers(attribute, 3) for attribute in texts(node.SerializeToString(), 5)}
    assert found == {b"size": [-1], b"other": [3], b"scale": [], b"text": []}
    renamed = edit(node.SerializeToString(), 3, lambda name: name + b" renamed" * 40)
    node.name += " renamed" * 40
    assert onnx.NodeProto.FromString(renamed) == node
    added = renamed + delimited(5, delimited(1, b"flag") + integer(3, 1) + integer(20, 2))
    node.attribute.append(helper.make_attribute("flag", 1))
    assert onnx.NodeProto.FromString(added) == node


def test_unchanged_fields_keep_their_bytes() -> None:
    message = helper.make_node("Op", ["a"], ["b"], scale=0.5).SerializeToString() + b"\x91\x01" + b"12345678"
    assert edit(message, 99, lambda value: b"") == message
    assert [field.number for field in fields(message)][-1] == 18


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x0a\x05abc", "a field is longer than what holds it"),
        (b"\x0a", "a number does not end"),
        (b"\x08" + b"\xff" * 11, "a number does not end"),
        (b"\x0b", "wire type 3"),
        (b"\x09abc", "a field is longer"),
    ],
)
def test_bytes_that_are_not_a_message(message: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"not a protobuf message: .*{reason}"):
        list(fields(message))
