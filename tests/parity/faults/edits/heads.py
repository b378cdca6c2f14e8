"""Edits that make faults in the heads of tasks other than text generation."""

from ..artifact_editor import ArtifactEditor


def pools_the_first(editor: ArtifactEditor) -> None:
    """Make sequence classification read the first token."""
    last = editor.node("score/ArgMax").outputs[0]
    users = list(last.uses())
    first = editor.insert("Mul", [last, editor.constant(0)])
    for user, index in users:
        user.replace_input_with(index, first)


def pools_the_padding(editor: ArtifactEditor) -> None:
    """Make sequence classification read the last position, even where it is padding."""
    text = editor.node("input_ids/Cast").outputs[0]
    users = list(text.uses())
    ones = editor.insert("Add", [editor.insert("Mul", [text, editor.constant(0)]), editor.constant(1)])
    for user, index in users:
        user.replace_input_with(index, ones)


def labels_in_another_order(editor: ArtifactEditor) -> None:
    """Reverse the labels in the manifest; the logits stay."""
    editor.manifest["model"]["labels"].reverse()


def start_and_end_swapped(editor: ArtifactEditor) -> None:
    outputs = editor.graph.outputs
    start, end = outputs
    start.name, end.name = "swapped", "start_logits"
    start.name = "end_logits"
    outputs[0], outputs[1] = end, start
