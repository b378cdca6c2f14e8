"""Compare source and artifact with another implementation on the same text."""

from ...artifact import Manifest
from ...errors import UnsupportedError
from ...models.checkpoint import Checkpoint
from ...runtime.engine.session import Session
from ..cases.case import Case
from ..cases.source_model import SourceModel
from ..report.result import Reference
from ..report.tally import Tally, kind_of
from ..report.thresholds import NOISE, standard_of
from .transformers import transformers_logits


def against(
    checkpoint: Checkpoint, manifest: Manifest, session: Session, model: SourceModel, case: Case
) -> tuple[Reference, ...]:
    """Return transformers' distance from the source, and the artifact's from transformers, over a case's passages.

    Raises:
        DependencyError: transformers is not installed.
        UnsupportedError: it cannot read this checkpoint, or the artifact has adapters in it.
    """
    if manifest.source.adapters:
        raise UnsupportedError(
            f"{checkpoint.folder}: transformers would read it without the adapters that the artifact was made with; "
            "leave --reference transformers out"
        )
    kind = kind_of(manifest.task, manifest.model)
    ours, theirs = Tally(kind, NOISE["fp32"]), Tally(kind, NOISE[standard_of(manifest)])
    outputs = {index: rows for index, _, rows in case.run(session)}
    tokens = [passage.tokens for passage in case.passages]
    found = transformers_logits(checkpoint.folder, manifest.task, tokens, manifest.model.attention)
    for index, (passage, rows) in enumerate(zip(case.passages, found, strict=True)):
        ours.add(model.outputs(passage, 0, passage.tokens.size), rows, following=None)
        theirs.add(rows, outputs[index])
    return (Reference("transformers", ours.figures(), theirs.figures()),)
