"""Faults in the heads that do not generate. Each function changes an opened artifact."""

from ..artifact_editor import ArtifactEditor


def pools_the_first(editor: ArtifactEditor) -> None:
    """Sequence classification reads the first token."""
    last = editor.node("ArgMax").outputs[0]
    users = list(last.uses())
    first = editor.insert("Mul", [last, editor.constant(0)])
    for user, index in users:
        user.replace_input_with(index, first)


def pools_the_padding(editor: ArtifactEditor) -> None:
    """Sequence classification reads the last position, padding or not."""
    text = editor.node("Cast").outputs[0]
    users = list(text.uses())
    ones = editor.insert("Add", [editor.insert("Mul", [text, editor.constant(0)]), editor.constant(1)])
    for user, index in users:
        user.replace_input_with(index, ones)


def labels_in_another_order(editor: ArtifactEditor) -> None:
    """The logits are right, the names beside them are not."""
    editor.manifest["model"]["labels"].reverse()


def start_and_end_swapped(editor: ArtifactEditor) -> None:
    outputs = editor.graph.outputs
    start, end = outputs
    start.name, end.name = "exchanged", "start_logits"
    start.name = "end_logits"
    outputs[0], outputs[1] = end, start
