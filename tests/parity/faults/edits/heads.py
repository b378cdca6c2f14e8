"""Faults in the heads that do not generate. Each function changes an opened artifact."""

from ..surgery import Surgery


def pools_the_first(s: Surgery) -> None:
    """Sequence classification reads the first token."""
    last = s.node("ArgMax").outputs[0]
    users = list(last.uses())
    first = s.insert("Mul", [last, s.constant(0)])
    for user, index in users:
        user.replace_input_with(index, first)


def pools_the_padding(s: Surgery) -> None:
    """Sequence classification reads the last position, padding or not."""
    text = s.node("Cast").outputs[0]
    users = list(text.uses())
    ones = s.insert("Add", [s.insert("Mul", [text, s.constant(0)]), s.constant(1)])
    for user, index in users:
        user.replace_input_with(index, ones)


def labels_in_another_order(s: Surgery) -> None:
    """The logits are right, the names beside them are not."""
    s.manifest["model"]["labels"].reverse()


def start_and_end_exchanged(s: Surgery) -> None:
    outputs = s.graph.outputs
    start, end = outputs
    start.name, end.name = "exchanged", "start_logits"
    start.name = "end_logits"
    outputs[0], outputs[1] = end, start
