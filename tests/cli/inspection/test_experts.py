"""``inspect`` says how many parameters of a mixture of experts compute a token."""

from math import prod
from pathlib import Path

from intaglio.cli.inspection.checkpoint import describe_checkpoint
from intaglio.tests import tiny


def test_active_parameters(tmp_path: Path) -> None:
    values = tiny.config("qwen2_moe")
    description = describe_checkpoint(tiny.write(tmp_path / "source", values, tokenizer=True))
    unread = sum(  # four of the six experts of each layer
        prod(shape) for name, shape in tiny.shapes(values).items() if any(f".experts.{i}." in name for i in range(4))
    )
    total = sum(prod(shape) for shape in tiny.shapes(values).values())
    assert description.parameters == total
    assert description.details["experts"] == {
        "layers with experts": 3,
        "experts of a layer": 6,
        "experts of a token": 2,
        "active parameters": total - unread,
    }
    lines = " ".join(text.replace("\u00a0", " ") for _, text in description.to_lines(()))
    assert f"active parameters {total - unread:,}" in lines


def test_other_models_have_no_such_line(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "source", tiny.config("qwen2"), tokenizer=True)
    assert "experts" not in describe_checkpoint(folder).details
