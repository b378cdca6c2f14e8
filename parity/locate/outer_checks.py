"""Checks of the modules outside the layers: the embedding, the final norm and the head."""

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
from ...models.heads import projection_path
from ...models.layers import RMSNorm
from ...models.loading.layerwise import Layerwise
from .artifact_graph import ArtifactGraph
from .budgets import MARGIN, matmul_budget, quantization_of, relative_error, squared_column_norms
from .findings import Check
from .folded_scales import FoldedScales
from .graph_inputs import graph_inputs, prompt_inputs
from .hypotheses.heads import KEPT, head_hypotheses, head_output
from .hypotheses.mismatch import Cause, Hypothesis, Mismatch, first_cause, unexplained
from .hypotheses.operators import diagnose
from .scenarios import Scenario
from .source_run import LayerRun, SourceRun
from .tap_map import SUM, tensors_of
from .taps import HIDDEN, OUT, Tap

NORM = Tap("norm", (HIDDEN,), "norm", ("output", "norm"))
SAMPLE = 512
"""Rows of the LM head that its budget is estimated from."""


class OuterChecks:
    """The checks of an artifact's embedding, final norm and head, each on the source's activations."""

    def __init__(self, artifact: ArtifactGraph, source: Layerwise, base: float) -> None:
        """
        Args:
            base: the budget of an operator without quantized weights.
        """
        self.artifact, self.source, self.base = artifact, source, base
        self.manifest, self.tap_map = artifact.manifest, artifact.tap_map
        self.task: Task = artifact.manifest.task

    def embedding(self, tokens: Tensor) -> list[Check]:
        """Check the embedding of tokens int64 [1, S]."""
        path, tap = f"{self.tap_map.trunk}embed_tokens", self.tap_map.embedding
        if tap is None:
            return [Check.failed(path, self.base, "the embedding is missing: the graph has no node for it")]
        names = tensors_of(tap.value, set(), self.manifest)
        quantization = quantization_of(names, self.manifest)
        budget = self.base + (MARGIN * quantization.error if quantization is not None else 0.0)
        try:
            inputs = prompt_inputs(self.manifest, tokens)
            actual = self.artifact.subgraph([tap.value]).run(inputs, {}, [tap.value])[0]
        except ArtifactError as error:
            return [Check.failed(path, budget, f"the embedding does not run on its own: {error}")]
        expected = self.source.embed(tokens)
        hypotheses = partial(self._embedding_hypotheses, tokens)
        cause = partial(_diagnose, "the embedding", expected, actual, None, budget, hypotheses)
        return [Check(path, tap.node.name, relative_error(expected, actual), budget, cause, names)]

    def _embedding_hypotheses(self, tokens: Tensor) -> Iterator[Hypothesis]:
        size = self.source.config.vocab_size
        for by, which in ((1, "next"), (-1, "previous")):
            yield f"each token gets the row of the {which} token id", self.source.embed((tokens + by) % size)

    def norm_and_head(self, runs: Sequence[SourceRun]) -> list[Check]:
        """Check the final norm and the head on the last layer's output; of each, the worst scenario counts."""
        checked = [run for run in runs if self.task != "text-generation" or run.scenario.name == "prompt"]
        checks: dict[str, Check] = {}
        for number, run in enumerate(checked):
            scenario = run.scenario.description if number else ""
            for check in (*self._norm(run, scenario), *self._head(run, scenario)):
                old = checks.get(check.module)
                if old is None or (not old.fails and check.error > old.error):
                    checks[check.module] = check
        return [*checks.values(), *self._labels()]

    def _labels(self) -> list[Check]:
        ours, theirs = self.manifest.model.labels, self.source.config.labels
        if self.task not in ("text-classification", "token-classification") or ours == theirs:
            return []
        text = f"the manifest's labels are {', '.join(ours)}, config.json's id2label has {', '.join(theirs)}"
        return [Check.failed(projection_path(self.task), self.base, text)]

    def _norm(self, run: SourceRun, scenario: str) -> list[Check]:
        config, path = self.source.config, f"{self.tap_map.trunk}norm"
        tap, hidden = self.tap_map.norm, self.tap_map.layers[-1].get(OUT)
        expected, mask = self.source.norm(run.hidden), run.scenario.unpadded
        if tap is None or hidden is None or tap.value is hidden.value:
            error = relative_error(expected, run.hidden, mask)
            return [
                Check(path, None, error, self.base, lambda: Cause("the norm is skipped: the graph has no node for it"))
            ]
        try:
            subgraph = self.artifact.subgraph([tap.value], [hidden.value])
            inputs = graph_inputs(run.scenario, self.manifest, {})
            actual = subgraph.run(inputs, {hidden.value: run.hidden}, [tap.value])[0]
        except ArtifactError as error:
            return [Check.failed(path, self.base, f"the norm does not run on its own: {error}")]
        prefix = self.source.checkpoint.trunk_prefix
        norms = FAMILIES[config.family].layer_norms
        module = RMSNorm(config.hidden_size, config.rms_norm_eps)
        module.weight = nn.Parameter(self._weight(f"{prefix}norm.weight"), False)
        mismatch = Mismatch(
            config,
            config.num_hidden_layers,
            NORM,
            module,
            LayerRun(run.scenario, run.plan, run.hidden, {"norm": expected}),
            expected,
            actual,
            relative_error(expected, actual, mask),
            self.base,
            FoldedScales(FAMILIES[config.family]),
            # The norms that it may have been mistaken for are those of the layers.
            lambda layer: self._weight(f"{prefix}layers.{layer}.{norms[-1]}.weight") if norms else module.weight,
            lambda layer: self.tap_map.path(layer, *norms[-1:]),
        )
        names = tensors_of(tap.value, {hidden.value}, self.manifest)
        operator = (tap.node.name or "").removesuffix(SUM) or None
        return [Check(path, operator, mismatch.error, self.base, partial(diagnose, mismatch), names, scenario)]

    def _weight(self, name: str) -> Tensor:
        return self.source.checkpoint.tensor(name).float()

    def _head(self, run: SourceRun, scenario: str) -> list[Check]:
        if self.task == "feature-extraction" or self.tap_map.norm is None:
            return []
        path, norm = projection_path(self.task), self.tap_map.norm.value
        names = OUTPUTS[self.task]
        values = [value for name in names for value in self.artifact.graph.outputs if value.name == name]
        normed = self.source.norm(run.hidden)
        expected = head_output(self.source, self.task, run.scenario, normed)
        weights = tensors_of(values[0], {norm}, self.manifest)
        budget = self._head_budget(normed, expected, weights)
        try:
            actual = self._run_head(run.scenario, normed, values, norm)
        except ArtifactError as error:
            return [Check.failed(path, budget, f"the head does not run on its own: {error}")]
        unpadded = run.scenario.unpadded
        mask = unpadded if expected.shape[:2] == unpadded.shape else None
        hypotheses = partial(head_hypotheses, self.source, self.task, run, expected, actual)
        cause = partial(_diagnose, "the head", expected, actual, mask, budget, hypotheses)
        producer = values[0].producer()
        operator = producer.name if producer is not None else None
        return [Check(path, operator, relative_error(expected, actual, mask), budget, cause, weights, scenario)]

    def _run_head(self, scenario: Scenario, normed: Tensor, outputs: Sequence[ir.Value], norm: ir.Value) -> Tensor:
        inputs = graph_inputs(scenario, self.manifest, {}) | {LOGITS_TO_KEEP: np.array([KEPT])}
        found = self.artifact.subgraph(outputs, [norm]).run(inputs, {norm: normed}, outputs)
        return torch.stack(found, -1) if len(found) > 1 else found[0]

    def _head_budget(self, normed: Tensor, expected: Tensor, names: Sequence[str]) -> float:
        quantization = quantization_of(names, self.manifest)
        if self.task != "text-generation":
            head = self.source.head(self.task)
            columns = squared_column_norms(head.get_parameter("weight"))
            return matmul_budget(self.base, columns, normed, head(normed), quantization)
        config = self.source.config
        rows = torch.linspace(0, config.vocab_size - 1, min(SAMPLE, config.vocab_size)).long()
        tied = config.tie_word_embeddings
        weight = self.source.embed(rows[None])[0] if tied else self._select_rows("lm_head.weight", rows)
        columns = squared_column_norms(weight)
        return matmul_budget(self.base, columns, normed[:, -KEPT:], expected[..., rows], quantization)

    def _select_rows(self, name: str, rows: Tensor) -> Tensor:
        """Return rows of a tensor of the checkpoint, given in ascending order."""
        parts = []
        for start, chunk in self.source.checkpoint.rows(name):
            inside = rows[(rows >= start) & (rows < start + len(chunk))] - start
            parts.append(chunk[inside].float())
        return torch.cat(parts)


def _diagnose(
    operator: str,
    expected: Tensor,
    actual: Tensor,
    mask: Tensor | None,
    budget: float,
    hypotheses: Callable[[], Iterator[Hypothesis]],
) -> Cause:
    cause = first_cause(hypotheses(), expected, actual, budget, mask)
    error = relative_error(expected, actual, mask)
    return cause or unexplained(operator, expected, actual, error, budget)
