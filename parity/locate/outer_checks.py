"""What is before the layers and behind them: the embedding, the final norm and the head."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from ...artifact import Task
from ...contract import LOGITS_TO_KEEP, OUTPUTS
from ...errors import ArtifactError
from ...models.family import FAMILIES
from ...models.layers import RMSNorm
from ...models.layerwise import Layerwise
from .batches import Batch, Step, Trail, feeds, relative_error
from .budgets import MARGIN, energies, product, quantization_of
from .heads import KEPT, head_mistakes, outputs
from .hypotheses import explain
from .judgement import Judgement
from .places import HIDDEN, OUT, SUM, Place, weights_of
from .probe import Probe, whole_feeds
from .symptoms import Candidate, Cause, Symptom, plausible, scaled, unexplained

HEADS: dict[Task, str] = {
    "text-generation": "lm_head",
    "text-classification": "score",
    "token-classification": "score",
    "question-answering": "qa_outputs",
}
"""Where each task's head is in the native definition."""
NORM = Place("norm", (HIDDEN,), "norm", ("output", "norm"))
SAMPLE = 512
"""Rows of a wide head from which its budget is reckoned."""


class Ends:
    """The artifact's embedding, final norm and head, each on the source's numbers."""

    def __init__(self, probe: Probe, stream: Layerwise, base: float) -> None:
        self.probe, self.stream, self.base = probe, stream, base
        self.manifest, self.anatomy, self.task = probe.manifest, probe.anatomy, probe.manifest.task

    def embedding(self, tokens: Tensor) -> list[Judgement]:
        """The rows that tokens int64 [1, S] are given."""
        path, spot = f"{self.anatomy.trunk}embed_tokens", self.anatomy.embedding
        if spot is None:
            return [_wrong(path, self.base, "the embedding is missing: no node of the graph belongs to it")]
        names = weights_of(spot.value, set(), self.manifest)
        quantization = quantization_of(names, self.manifest)
        budget = self.base + (MARGIN * quantization.error if quantization is not None else 0.0)
        try:
            found = self.probe.piece([spot.value]).run(whole_feeds(self.manifest, tokens), {}, [spot.value])[0]
        except ArtifactError as problem:
            return [_wrong(path, budget, f"the embedding by itself does not run: {problem}")]
        wanted = self.stream.embed(tokens)
        why = partial(_why, "a row of the embedding", wanted, found, None, budget, lambda: self._rows(tokens))
        return [Judgement(path, spot.node.name, relative_error(wanted, found), budget, why, names)]

    def _rows(self, tokens: Tensor) -> Iterator[Candidate]:
        size = self.stream.config.vocab_size
        for by, side in ((1, "behind"), (-1, "before")):
            yield f"each token has the row of the one {side} it", self.stream.embed((tokens + by) % size)

    def behind(self, trails: Sequence[Trail]) -> list[Judgement]:
        """The final norm and the head, on what the last layer gives."""
        tried = [trail for trail in trails if self.task != "text-generation" or trail.batch.name == "prompt"]
        found: dict[str, Judgement] = {}
        for number, trail in enumerate(tried):
            when = trail.batch.what if number else ""
            for judgement in (*self._norm(trail, when), *self._head(trail, when)):
                old = found.get(judgement.module)
                if old is None or (not old.exceeds and judgement.error > old.error):
                    found[judgement.module] = judgement
        return [*found.values(), *self._labels()]

    def _labels(self) -> list[Judgement]:
        ours, theirs = self.manifest.model.labels, self.stream.config.labels
        if self.task not in ("text-classification", "token-classification") or ours == theirs:
            return []
        words = f"the manifest's labels are {', '.join(ours)}, config.json's id2label has {', '.join(theirs)}"
        return [_wrong(HEADS[self.task], self.base, words)]

    def _norm(self, trail: Trail, when: str) -> list[Judgement]:
        config, path = self.stream.config, f"{self.anatomy.trunk}norm"
        spot, hidden = self.anatomy.norm, self.anatomy.layers[-1].get(OUT)
        wanted, rows = self.stream.norm(trail.hidden), trail.batch.new
        if spot is None or hidden is None or spot.value is hidden.value:
            error = relative_error(wanted, trail.hidden, rows)
            words = "the norm is skipped: no node of the graph belongs to it"
            return [Judgement(path, None, error, self.base, lambda: Cause(words))]
        try:
            piece = self.probe.piece([spot.value], [hidden.value])
            inputs = feeds(trail.batch, self.manifest, {})
            found = piece.run(inputs, {hidden.value: trail.hidden}, [spot.value])[0]
        except ArtifactError as problem:
            return [_wrong(path, self.base, f"the norm by itself does not run: {problem}")]
        prefix = self.stream.checkpoint.trunk_prefix
        norms = FAMILIES[config.family].layer_norms
        module = RMSNorm(config.hidden_size, config.rms_norm_eps)
        module.weight = nn.Parameter(self._weight(f"{prefix}norm.weight"), False)
        error = relative_error(wanted, found, rows)
        symptom = Symptom(
            config,
            config.num_hidden_layers,
            NORM,
            module,
            Step(trail.batch, trail.plan, trail.hidden, {"norm": wanted}),
            wanted,
            found,
            error,
            self.base,
            {},
            # The norms that could have been taken for it are those of the layers.
            lambda layer: self._weight(f"{prefix}layers.{layer}.{norms[-1]}.weight") if norms else module.weight,
            lambda layer: self.anatomy.path(layer, *norms[-1:]),
        )
        names = weights_of(spot.value, {hidden.value}, self.manifest)
        operator = (spot.node.name or "").removesuffix(SUM) or None
        return [Judgement(path, operator, error, self.base, partial(explain, symptom), names, when)]

    def _weight(self, name: str) -> Tensor:
        return self.stream.checkpoint.tensor(name).float()

    def _head(self, trail: Trail, when: str) -> list[Judgement]:
        if self.task == "feature-extraction" or self.anatomy.norm is None:
            return []
        path, norm = HEADS[self.task], self.anatomy.norm.value
        names = OUTPUTS[self.task]
        values = [value for name in names for value in self.probe.graph.outputs if value.name == name]
        normed = self.stream.norm(trail.hidden)
        wanted = outputs(self.stream, self.task, trail.batch, normed)
        weights = weights_of(values[0], {norm}, self.manifest)
        budget = self._budget(normed, wanted, weights)
        try:
            found = self._run_head(trail.batch, normed, values, norm)
        except ArtifactError as problem:
            return [_wrong(path, budget, f"the head by itself does not run: {problem}")]
        rows = trail.batch.new if wanted.shape[:2] == trail.batch.new.shape else None
        mistakes = partial(head_mistakes, self.stream, self.task, trail, wanted, found)
        why = partial(_why, "the head's output", wanted, found, rows, budget, mistakes)
        producer = values[0].producer()
        operator = producer.name if producer is not None else None
        return [Judgement(path, operator, relative_error(wanted, found, rows), budget, why, weights, when)]

    def _run_head(self, batch: Batch, normed: Tensor, values: Sequence[ir.Value], norm: ir.Value) -> Tensor:
        inputs = feeds(batch, self.manifest, {}) | {LOGITS_TO_KEEP: np.array([KEPT])}
        found = self.probe.piece(values, [norm]).run(inputs, {norm: normed}, values)
        return torch.stack(found, -1) if len(found) > 1 else found[0]

    def _budget(self, normed: Tensor, wanted: Tensor, names: Sequence[str]) -> float:
        quantization = quantization_of(names, self.manifest)
        if self.task != "text-generation":
            head = self.stream.head(self.task)
            return product(self.base, energies(head.get_parameter("weight")), normed, head(normed), quantization)
        config = self.stream.config
        rows = torch.linspace(0, config.vocab_size - 1, min(SAMPLE, config.vocab_size)).long()
        tied = config.tie_word_embeddings
        weight = self.stream.embed(rows[None])[0] if tied else self._picked("lm_head.weight", rows)
        return product(self.base, energies(weight), normed[:, -KEPT:], wanted[..., rows], quantization)

    def _picked(self, name: str, wanted: Tensor) -> Tensor:
        """Some rows of a table, which are asked for in its order."""
        pieces = self.stream.checkpoint.rows(name)
        inside = ((wanted[(wanted >= start) & (wanted < start + len(piece))] - start, piece) for start, piece in pieces)
        return torch.cat([piece[rows].float() for rows, piece in inside])


def _wrong(path: str, budget: float, words: str) -> Judgement:
    """Of what cannot be compared."""
    return Judgement(path, None, 1.0, budget, lambda: Cause(words))


def _why(
    what: str,
    wanted: Tensor,
    found: Tensor,
    rows: Tensor | None,
    budget: float,
    mistakes: Callable[[], Iterator[Candidate]],
) -> Cause:
    error = relative_error(wanted, found, rows)
    for candidates in (mistakes(), scaled(wanted, found)):
        for cause, candidate in candidates:
            if plausible(relative_error(candidate, found, rows), error, budget):
                return Cause(cause) if isinstance(cause, str) else cause
    return unexplained(what, wanted, found, error, budget)
