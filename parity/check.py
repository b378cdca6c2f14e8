"""The whole check: open both sides, compare every case, audit the weights, locate errors, and decide the verdict."""

import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..artifact import Manifest
from ..errors import UsageError
from ..known_options import refuses_unknown_options
from ..machine import peak_rss, usable_cpus
from ..models.adapters.given import Adapter
from ..models.checkpoint import Checkpoint
from ..runtime.engine.onnxruntime import import_onnxruntime
from ..runtime.engine.session import Device
from ..runtime.folder import open_folder
from ..runtime.text.tokenizer import Tokenizer, try_tokenizer
from .audit import audit
from .cases.case import Case
from .cases.causal import generation_cases
from .cases.compare import compare_cases
from .cases.details import by_position, pairs, worst_tokens
from .cases.greedy import GreedyRun, continuations, greedy
from .cases.heads import head_cases
from .cases.sessions import Sessions
from .cases.source_model import SourceModel
from .cases.texts import Tokens, read_tokens, windows
from .locate import layer_errors, locate
from .opening import Progress, memory_shortage, open_source, verify_files, verify_source
from .options import CheckOptions, command_line
from .reference.compare import against
from .report.report import Report
from .report.result import Carried, Reference
from .report.thresholds import NOISE, limits_for, overall, standard_of

PROBED = 128
"""Tokens that the instrumented graph reads."""


@refuses_unknown_options
def check(
    artifact: str | Path,
    source: str | Path | None = None,
    *,
    adapters: Sequence[Adapter | str | Path] = (),
    options: CheckOptions | None = None,
    device: Device = "cpu",
    threads: int | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare an artifact with the checkpoint that it was made from.

    Args:
        artifact: its folder, or a hub id.
        source: the checkpoint, a folder or a hub id; None for the hub id that the manifest names.
        adapters: where the adapters are that the artifact was made with; none are needed if they are hub ids.
        options: the text that is compared, and the limits.
        device: the device of the artifact; the source runs on the CPU, in float32.
        threads: threads of each side; None for every processor that this process may use.
        revision: branch, tag or commit of the source's hub id.
        progress: called with (stage, done, total); see ``Progress``.

    Raises:
        ArtifactError: the artifact is damaged.
        CheckpointError, UnsupportedError, HubError: the source cannot be read.
        UsageError: the source is another model, the text cannot be used, or an option is out of range.
        DependencyError: onnxruntime, or the reference, is not installed.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or usable_cpus())
    try:
        return _check(
            artifact, source, adapters, options or CheckOptions(), device, threads, revision, progress or _silent
        )
    finally:
        torch.set_num_threads(before)


def _check(
    artifact: str | Path,
    source: str | Path | None,
    adapters: Sequence[Adapter | str | Path],
    options: CheckOptions,
    device: Device,
    threads: int | None,
    revision: str | None,
    report: Progress,
) -> Report:
    started = time.monotonic()
    folder, manifest = open_folder(artifact)
    standard = standard_of(manifest)
    limits = limits_for(standard, options.limits)
    checkpoint, name = open_source(folder, manifest, source, revision, adapters)
    if device == "cpu" and (shortage := memory_shortage(folder, manifest)):
        raise UsageError(shortage)
    if not options.verified:
        verify_files(folder, manifest, report)
        verify_source(checkpoint, manifest, name, report)
    tokenizer = try_tokenizer(folder)
    model = SourceModel(checkpoint, manifest.task)
    length = min(options.window, manifest.model.context_length - 1)
    tokens = read_tokens(options.text, tokenizer, manifest.model.vocab_size, length)
    texts = windows(tokens, options.windows, length)
    sessions = Sessions(folder, manifest, device, threads)
    cases, runs, left_out = _cases(manifest, model, sessions, texts, tokens, options)
    if checkpoint.custom_code is not None:
        left_out.append(f"the checkpoint's own code ({checkpoint.custom_code}), which is not run")
    if checkpoint.adapter is not None:
        left_out.append(f"the adapter beside the weights ({checkpoint.adapter}), which is left out")
    passages = [*(passage for case in cases for passage in case.passages), *(run.passage for run in runs)]
    model.read(passages, _stage(report, "layers"))
    results, tally = compare_cases(cases, manifest, sessions, model, limits, _stage(report, "cases"))
    greedily = continuations(runs, model, NOISE[standard], tokenizer)
    references: tuple[Reference, ...] = ()
    if options.reference is not None:
        references = against(checkpoint, manifest, sessions.get(cases[0].decodes), model, cases[0])
    sessions.close()  # the instrumented graph needs the memory
    tensors = audit(folder, manifest, checkpoint, _stage(report, "audit"))
    probe = torch.from_numpy(texts[0][None, :PROBED].copy())
    layers = layer_errors(folder, manifest, model.model, probe, threads=threads)
    advance = _stage(report, "operators")
    findings = locate(folder, manifest, model.model, probe, tensors=tensors, threads=threads, advance=advance)
    verdict, reasons = overall(results, findings, tensors, limits)
    generates = manifest.task == "text-generation"
    return Report(
        verdict=verdict,
        reasons=reasons,
        artifact=str(artifact),
        source=name,
        digest=manifest.source.digest,
        family=manifest.family,
        task=manifest.task,
        target=manifest.target,
        precision=manifest.precision,
        parameters=_parameters(checkpoint),
        bytes=sum(entry.size for entry in manifest.files.values()),
        device=device,
        text=_text_in_words(options, tokenizer, texts),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - started,
        peak_rss_bytes=peak_rss(),
        limits=limits,
        cases=results,
        continuations=greedily,
        layers=layers,
        tensors=tensors,
        findings=findings,
        worst_tokens=worst_tokens(tally, cases[0], tokenizer) if generates else (),
        kl_by_position=by_position(tally, cases[0]) if generates else (),
        logits=pairs(tally),
        references=references,
        not_compared=tuple(left_out),
        tools=_tools(),
        machine=f"{platform.machine()}, {platform.system()}, {usable_cpus()} processors",
        command=command_line(artifact, name, options, device, [str(_place(one)) for one in adapters]),
        carried=Carried.of(tensors),
    )


def _cases(
    manifest: Manifest,
    model: SourceModel,
    sessions: Sessions,
    texts: list[Tokens],
    tokens: Tokens,
    options: CheckOptions,
) -> tuple[list[Case], list[GreedyRun], list[str]]:
    """Return the task's cases, the artifact's greedy continuations, and what is not compared."""
    if manifest.task != "text-generation":
        cases, left_out = head_cases(model.config, manifest, texts, tokens, options.longest)
        return cases, [], left_out
    cases, left_out = generation_cases(model.config, texts, tokens, options.steps, options.longest)
    return cases, greedy(sessions.get(decodes=True), texts, options.steps), left_out


def _place(adapter: Adapter | str | Path) -> str | Path:
    """Return the folder or the hub id of an adapter; the manifest has its weight."""
    return adapter.source if isinstance(adapter, Adapter) else adapter


def _stage(report: Progress, stage: str) -> Callable[[int, int], None]:
    return lambda done, total: report(stage, done, total)


def _silent(stage: str, done: int, total: int) -> None:
    """Ignore the progress."""


def _parameters(checkpoint: Checkpoint) -> int:
    return sum(int(np.prod(info.shape, dtype=np.int64)) for info in checkpoint.tensors.values())


def _text_in_words(options: CheckOptions, tokenizer: Tokenizer | None, texts: list[Tokens]) -> str:
    what = "the text that comes with intaglio" if options.text is None else options.text.name
    if tokenizer is None:
        what = "random tokens, because there is no tokenizer"
    return f"{what}: {len(texts)} windows of {texts[0].size} tokens"


def _tools() -> dict[str, str]:
    return {
        "intaglio": __version__,
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "numpy": metadata.version("numpy"),
        "onnxruntime": import_onnxruntime().__version__,
    }
