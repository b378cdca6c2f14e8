"""Faults of RoPE's frequencies and tables."""

import numpy as np

from ..artifacts import Base
from ..faults.artifact_editor import ArtifactEditor
from ..faults.edits.attention import Edit, cos_and_sin_swapped, other_positions, short_table, tables
from .faulty_weight import FaultyWeight

STANDARD = Base("qwen2", target="standard")
TABLES = Base("exaone4", rope={"rope_type": "linear", "factor": 2.5}, changes={"tie_word_embeddings": True})

position_late = other_positions(lambda editor, given: editor.insert("Add", [given, editor.constant(1)], "model"))


def halved(editor: ArtifactEditor) -> None:
    """Halve the table of sines, and not that of cosines."""
    _, sin = tables(editor)
    users = list(sin.uses())
    small = editor.insert("Mul", [sin, editor.constant(0.5, np.float32)], "model")
    for user, index in users:
        user.replace_input_with(index, small)


def theta(value: float) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        frequencies = editor.array("model.rotary_emb.inv_freq")
        frequencies[:] = value ** (-np.arange(len(frequencies)) / len(frequencies))

    return edit


ROTARY_FAULTS = [
    FaultyWeight(
        "cos and sin",
        TABLES,
        cos_and_sin_swapped,
        "model.rotary_emb.cos",
        "cos and sin are swapped",
        ("model.rotary_emb.sin",),
    ),
    FaultyWeight(
        "position",
        TABLES,
        position_late,
        "model.rotary_emb.cos",
        "RoPE rotates each position by the angles of the next one",
        ("model.rotary_emb.sin",),
    ),
    FaultyWeight(
        "type",
        TABLES,
        theta(10_000),
        "model.rotary_emb.inv_freq",
        "RoPE is of the default type, and config.json has linear",
    ),
    FaultyWeight(
        "a table half as long",
        TABLES,
        short_table,
        "model.rotary_emb.cos",
        "correct up to position 63, and wrong from there on",
        ("model.rotary_emb.sin",),
    ),
    FaultyWeight("a table times a half", TABLES, halved, "model.rotary_emb.sin", r"it is 0\.5 times the expected one"),
    FaultyWeight(
        "theta",
        STANDARD,
        theta(123_000),
        "model.rotary_emb.inv_freq",
        "theta of 123,000, and config.json has 10,000 and the type default",
    ),
]
