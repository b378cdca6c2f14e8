"""What is before the layers and behind them: the embedding, the final norm and the head."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..artifact import Task
from ..errors import ArtifactError
from ..models.layers import RMSNorm
from ..models.layerwise import Layerwise
from .batches import Batch, Step, Trail, feeds, relative_error
from .budgets import MARGIN, product, quantization_of
from .hypotheses import Cause, Symptom, explain, matched
from .places import HIDDEN, OUT, Place, weights_of
from .probe import Probe, whole_feeds
from .result import Finding, TensorError

KEPT = 4
"""How many of the last positions get logits: a vocabulary is wide."""
HEADS: dict[Task, str] = {
    "text-generation": "lm_head",
    "text-classification": "score",
    "token-classification": "score",
    "question-answering": "qa_outputs",
}
"""Where each task's head is in the native definition."""
OUTPUTS: dict[Task, tuple[str, ...]] = {"question-answering": ("start_logits", "end_logits")}
NORM = Place("norm", (HIDDEN,), "norm", ("output", "norm"))


class Ends:
    """The artifact's embedding, final norm and head, each on the source's numbers."""

    def __init__(self, probe: Probe, stream: Layerwise, base: float, tensors: Sequence[TensorError]) -> None:
        self.probe, self.stream, self.base, self.tensors = probe, stream, base, tensors
        self.manifest, self.anatomy, self.task = probe.manifest, probe.anatomy, probe.manifest.task

    def embedding(self, tokens: Tensor) -> list[Finding]:
        """The rows that tokens int64 [1, S] are given."""
        path, spot = f"{self.anatomy.trunk}embed_tokens", self.anatomy.embedding
        if spot is None:
            return [Finding(path, None, 1.0, self.base, "the embedding is missing: no node of the graph belongs to it")]
        names = weights_of(spot.value, set(), self.manifest)
        quantization = quantization_of(names, self.manifest)
        budget = self.base + (MARGIN * quantization.error if quantization is not None else 0.0)
        try:
            found = self.probe.piece([spot.value]).run(whole_feeds(self.manifest, tokens), {}, [spot.value])[0]
        except ArtifactError as problem:
            return [Finding(path, spot.node.name, 1.0, budget, f"the embedding by itself does not run: {problem}")]
        wanted = self.stream.embed(tokens)
        error = relative_error(wanted, found)
        words = f"the rows of the embedding differ by {error:.2g} of their size"
        for cause, candidate in self._rows(tokens, wanted, found):
            if relative_error(candidate, found) <= min(2 * budget, error / 5):
                words = cause
                break
        return self._finding(path, spot.node.name, error, budget, names, Cause(words))

    def _rows(self, tokens: Tensor, wanted: Tensor, found: Tensor) -> Iterator[tuple[str, Tensor]]:
        size = self.stream.config.vocab_size
        yield "the embedding gives zeros", torch.zeros_like(wanted)
        for by, side in ((1, "behind"), (-1, "before")):
            yield f"each token has the row of the one {side} it", self.stream.embed((tokens + by) % size)
        if wanted.shape == found.shape:
            factor = float((wanted * found).sum() / wanted.square().sum())
            yield f"the rows are {factor:.4g} times what they should be", wanted * factor

    def behind(self, trails: Sequence[Trail]) -> list[Finding]:
        """The final norm and the head, on what the last layer gives."""
        tried = [t for t in trails if self.task != "text-generation" or t.batch.name == "prompt"]
        found: dict[str, Finding] = {}
        for trail in tried:
            for finding in (*self._norm(trail), *self._head(trail)):
                words = finding.cause if trail is tried[0] else f"with {trail.batch.what}: {finding.cause}"
                found.setdefault(
                    finding.module,
                    Finding(finding.module, finding.operator, finding.error, finding.budget, words, finding.verdict),
                )
        return list(found.values())

    def _norm(self, trail: Trail) -> list[Finding]:
        config, path = self.stream.config, f"{self.anatomy.trunk}norm"
        spot, hidden = self.anatomy.norm, self.anatomy.layers[-1].get(OUT)
        wanted, rows = self.stream.norm(trail.hidden), trail.batch.new
        if spot is None or hidden is None or spot.value is hidden.value:
            error = relative_error(wanted, trail.hidden, rows)
            words = "the norm is skipped: no node of the graph belongs to it"
            return [Finding(path, None, error, self.base, words)]
        names = weights_of(spot.value, {hidden.value}, self.manifest)
        inputs = feeds(trail.batch, self.manifest, {})
        try:
            piece = self.probe.piece([spot.value], [hidden.value])
            found = piece.run(inputs, {hidden.value: trail.hidden}, [spot.value])[0]
        except ArtifactError as problem:
            return [Finding(path, spot.node.name, 1.0, self.base, f"the norm by itself does not run: {problem}")]
        error = relative_error(wanted, found, rows)
        cause = None
        if error > self.base:
            module = RMSNorm(config.hidden_size, config.rms_norm_eps)
            module.weight = nn.Parameter(self._weight(f"{self.stream.checkpoint.trunk_prefix}norm.weight"), False)
            step = Step(trail.batch, trail.plan, trail.hidden, {"norm": wanted})
            last = config.num_hidden_layers
            prefix = f"{self.stream.checkpoint.trunk_prefix}layers."

            def sibling(layer: int) -> Tensor:
                return self._weight(f"{prefix}{layer}.post_attention_layernorm.weight")

            cause = explain(Symptom(config, last, NORM, module, step, wanted, found, error, self.base, {}, sibling))
        words = Cause(f"the norm differs by {error:.2g} of its size: none of the usual mistakes explains it")
        return self._finding(path, spot.node.name, error, self.base, names, cause or words)

    def _weight(self, name: str) -> Tensor:
        return self.stream.checkpoint.tensor(name).float()

    def _head(self, trail: Trail) -> list[Finding]:
        if self.task == "feature-extraction" or self.anatomy.norm is None:
            return []
        path, norm = HEADS[self.task], self.anatomy.norm
        by_name = {value.name: value for value in self.probe.graph.outputs}
        outputs = [by_name[name] for name in OUTPUTS.get(self.task, ("logits",)) if name in by_name]
        normed = self.stream.norm(trail.hidden)
        names = weights_of(outputs[0], {norm.value}, self.manifest)
        wanted = self._outputs(trail.batch, normed)
        budget = self._head_budget(trail.batch, normed, wanted, names)
        inputs = feeds(trail.batch, self.manifest, {}) | {"logits_to_keep": np.array([KEPT])}
        try:
            piece = self.probe.piece(outputs, [norm.value])
            found = torch.stack(piece.run(inputs, {norm.value: normed}, outputs), -1)
        except (ArtifactError, RuntimeError) as problem:
            return [Finding(path, None, 1.0, budget, f"the head by itself does not run: {problem}")]
        found = found if len(outputs) > 1 else found[..., 0]
        rows = trail.batch.new if wanted.shape[:2] == trail.batch.new.shape else None
        error = relative_error(wanted, found, rows)
        words = Cause(f"the head's output differs by {error:.2g} of its size: none of the usual mistakes explains it")
        if error > budget:
            for cause, candidate in self._mistakes(trail, normed, wanted, found):
                if relative_error(candidate, found, rows) <= min(2 * budget, error / 5):
                    words = Cause(cause)
                    break
        producer = outputs[0].producer()
        return self._finding(path, producer.name if producer else None, error, budget, names, words)

    def _outputs(self, batch: Batch, normed: Tensor, *, pool: Tensor | None = None) -> Tensor:
        """What the head says of normed hidden states [B, S, D]: [B, kept, V], [B, L], [B, S, L] or [B, S, 2]."""
        if self.task == "text-generation":
            return self.stream.logits(normed[:, -KEPT:])
        head = self.stream.head(self.task)
        if self.task == "text-classification":
            normed = normed[torch.arange(len(normed)), self._last(batch) if pool is None else pool]
        output: Tensor = head(normed)
        return output

    def _last(self, batch: Batch) -> Tensor:
        """int64 [B]: of each row the last token that is not ``pad_token_id``."""
        pad = self.stream.config.pad_token_id
        size = batch.ids.shape[1]
        if pad is None:
            return torch.full((len(batch.ids),), size - 1)
        return (torch.arange(size) * (batch.ids != pad)).argmax(-1)

    def _head_budget(self, batch: Batch, normed: Tensor, wanted: Tensor, names: Sequence[str]) -> float:
        """Of a wide head, reckoned from its outputs: they have the weight's size in them."""
        if self.task != "text-generation":
            weight = self.stream.head(self.task).get_parameter("weight").detach()
            return product(self.base, weight, normed, self._all(normed), quantization_of(names, self.manifest))
        rows = torch.linspace(0, self.stream.config.vocab_size - 1, 512).long()
        tied = self.stream.config.tie_word_embeddings
        weight = self.stream.embed(rows[None])[0] if tied else self._picked("lm_head.weight", rows)
        given = normed[:, -KEPT:]
        return product(self.base, weight, given, wanted[..., rows], quantization_of(names, self.manifest))

    def _all(self, normed: Tensor) -> Tensor:
        output: Tensor = self.stream.head(self.task)(normed)
        return output

    def _picked(self, name: str, wanted: Tensor) -> Tensor:
        """Some rows of a table."""
        found = [
            piece[wanted[(wanted >= start) & (wanted < start + len(piece))] - start].float()
            for start, piece in self.stream.checkpoint.rows(name)
        ]
        return torch.cat(found)

    def _mistakes(self, trail: Trail, normed: Tensor, wanted: Tensor, found: Tensor) -> Iterator[tuple[str, Tensor]]:
        batch, config = trail.batch, self.stream.config
        yield "the head gives zeros", torch.zeros_like(wanted)
        if self.task == "text-generation" and not config.tie_word_embeddings:
            table = f"{self.stream.checkpoint.trunk_prefix}embed_tokens.weight"
            given = normed[:, -KEPT:]
            logits = torch.cat([given @ rows.float().t() for _, rows in self.stream.checkpoint.rows(table)], -1)
            yield "lm_head is the embedding, and config.json has tie_word_embeddings = false", logits
        yield "the final norm is left out in front of the head", self._outputs(batch, trail.hidden)
        if self.task == "text-generation":
            yield "logits are of the first positions, not of the last", self.stream.logits(normed[:, :KEPT])
        if self.task == "text-classification":
            size = batch.ids.shape[1]
            rows = len(batch.ids)
            for position, name in ((0, "first"), (size - 1, "last, be it padding")):
                pool = torch.full((rows,), position)
                yield f"the score is of the {name} token", self._outputs(batch, normed, pool=pool)
            yield (
                "the score is of the token before the last",
                self._outputs(batch, normed, pool=(self._last(batch) - 1).clamp(min=0)),
            )
            mean = (normed * batch.new[..., None]).sum(1) / batch.new.sum(1, keepdim=True)
            yield "the score is of the mean of the tokens", self.stream.head(self.task)(mean)
        if self.task == "question-answering":
            yield "start and end are exchanged", wanted.flip(-1)
        elif self.task != "text-generation":
            order = matched(wanted[..., None], found[..., None])
            if order is not None:
                listed = ", ".join(map(str, order))
                yield f"the labels are in another order ({listed})", wanted[..., order]
        if self.task in ("token-classification", "question-answering"):
            bias = self.stream.head(self.task).get_parameter("bias").detach()
            yield "its bias is missing", wanted - bias
        yield "its sign is flipped", -wanted
        if wanted.shape == found.shape:
            off = ((wanted - found).abs().flatten(0, -2) > 1e-2 * wanted.std()).any(0).nonzero().flatten()
            if 0 < len(off) < wanted.shape[-1]:
                patched = wanted.clone()
                patched[..., off] = found[..., off]
                words = f"{len(off):,} of {wanted.shape[-1]:,} outputs are wrong, from {int(off[0])} to {int(off[-1])}"
                yield words, patched

    def _finding(
        self, path: str, operator: str | None, error: float, budget: float, names: Sequence[str], cause: Cause
    ) -> list[Finding]:
        faults = [f"{t.name}: {t.fault}" for t in self.tensors if t.fault is not None and t.name in names]
        if not faults and error <= budget:
            return []
        words = "; ".join(dict.fromkeys(faults)) or cause.words
        verdict = "drifted" if cause.rounding and not faults else "broken"
        return [Finding(path, operator, error, budget, words, verdict)]  # type: ignore[arg-type]
