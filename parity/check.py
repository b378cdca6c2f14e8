"""The whole check: open both sides, run every trial, audit the weights, find where it goes wrong, and judge."""

import platform
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..errors import InputError, UsageError
from ..models.checkpoint import Checkpoint
from ..runtime.engine.machine import peak_rss, usable_cpus
from ..runtime.engine.onnxruntime import import_onnxruntime
from ..runtime.engine.session import Device, Session
from ..runtime.folder import open_folder
from ..runtime.text.tokenizer import Tokenizer, try_tokenizer
from .audit import audit
from .locate import layer_errors, locate
from .opening import Progress, memory_shortage, open_source, verify_files, verify_source
from .reference.compare import against
from .report.measures import Tally, kind_of
from .report.result import Case, Finding, Limit, Reference, Report, TensorError, Verdict
from .report.thresholds import NOISE, judge, limits_for, worst
from .trials.causal import generation_trials
from .trials.details import by_position, pairs, worst_tokens
from .trials.greedy import continuations, greedy
from .trials.heads import head_trials
from .trials.sessions import Sessions
from .trials.source import Source
from .trials.texts import Tokens, read_tokens, windows
from .trials.trial import Trial, blocks

WORST = 12
"""How many of the worst tokens a report shows."""


PROBED = 128
"""Tokens that the instrumented graph reads."""
PADDING_ERROR = "seqlens_k"
"""What GroupQueryAttention names when a row begins with padding."""
REFUSED = "rows that begin with padding are refused, not computed wrongly; target standard takes them"


@dataclass(frozen=True)
class CheckOptions:
    """What is compared, and how strictly.

    Args:
        text: a file in UTF-8 that both sides read; None for the text that comes with intaglio.
        windows: how many windows of it, of ``window`` tokens each.
        steps: tokens decoded one by one, and of each greedy continuation.
        longest: sequences longer than this, as a wide sliding window needs, are left out, and the report says so.
        limits: by measure (``kl_mean``, ``relative_error``, ``flips``), a limit beyond which the copy is broken.
        reference: "transformers" compares with it as well.
        verified: files and source are known to be those of the manifest: they were written just now.
    """

    text: Path | None = None
    windows: int = 4
    window: int = 192
    steps: int = 32
    longest: int = 8192
    limits: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None
    verified: bool = False

    def __post_init__(self) -> None:
        """
        Raises:
            UsageError: a value out of its range.
        """
        for name, least in (("windows", 1), ("window", 8), ("steps", 1), ("longest", 8)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.reference not in (None, "transformers"):
            raise UsageError(f"reference is {self.reference!r}; the only one there is is 'transformers'")


def check(
    artifact: str | Path,
    source: str | Path | None = None,
    *,
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
        options: what is compared, and how strictly.
        device: that the artifact runs on; the source runs on the CPU, in float32.
        threads: of either side; None for every processor this process may use.
        revision: branch, tag or commit of the source's hub id.
        progress: hears how far the check is.

    Raises:
        ArtifactError: the artifact is damaged.
        CheckpointError, UnsupportedError, HubError: the source cannot be read.
        UsageError: the source is another model's, the text cannot be used, or an option is out of range.
        DependencyError: onnxruntime, or the reference, is not installed.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or usable_cpus())
    try:
        return _check(artifact, source, options or CheckOptions(), device, threads, revision, progress or _silent)
    finally:
        torch.set_num_threads(before)


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody hears."""


def _check(
    artifact: str | Path,
    source: str | Path | None,
    options: CheckOptions,
    device: Device,
    threads: int | None,
    revision: str | None,
    report: Progress,
) -> Report:
    started = time.monotonic()
    folder, manifest = open_folder(artifact)
    limits = limits_for(manifest.precision, options.limits)
    checkpoint, name = open_source(folder, manifest, source, revision)
    if device == "cpu" and (shortage := memory_shortage(folder, manifest)):
        raise UsageError(shortage)
    if not options.verified:
        verify_files(folder, manifest, report)
        verify_source(checkpoint, manifest, name, report)
    tokenizer = try_tokenizer(folder)
    model = Source(checkpoint, manifest.task)
    least = min(options.window, manifest.model.context_length - 1)
    tokens = read_tokens(options.text, tokenizer, manifest.model.vocab_size, least)
    texts = windows(tokens, options.windows, least)
    sessions = Sessions(folder, manifest, device, threads)
    generates = manifest.task == "text-generation"
    if generates:
        trials, left_out = generation_trials(model.config, texts, tokens, options.steps, options.longest)
        runs = greedy(sessions.get(decodes=True), texts, options.steps)
    else:
        trials, left_out = head_trials(model.config, manifest, texts, tokens, options.longest)
        runs = []
    model.read(
        [*(passage for trial in trials for passage in trial.passages), *(run.passage for run in runs)],
        lambda done, total: report("layers", done, total),
    )
    cases: dict[int, Case] = {}
    main = None
    # One session after the other: those of a kind together.
    for done, number in enumerate(sorted(range(len(trials)), key=lambda number: trials[number].decodes)):
        report("trials", done, len(trials))
        trial = trials[number]
        tally = Tally(kind_of(manifest.task, manifest.model), NOISE[manifest.precision], keep=0 if main else WORST)
        cases[number] = _case(trial, sessions.get(trial.decodes), model, tally, limits)
        main = main or tally
    report("trials", len(trials), len(trials))
    assert main is not None
    judged = tuple(cases[number] for number in range(len(trials)))
    greedily = continuations(runs, model, NOISE[manifest.precision], tokenizer)
    references: tuple[Reference, ...] = ()
    if options.reference is not None:
        references = against(checkpoint, manifest, sessions.get(trials[0].decodes), model, trials[0])
    sessions.close()  # the instrumented graph needs the memory
    tensors = audit(folder, manifest, checkpoint, lambda done, total: report("audit", done, total))
    probe = torch.from_numpy(texts[0][None, :PROBED].copy())
    layers = layer_errors(folder, manifest, model.model, probe, threads=threads)
    findings = locate(
        folder,
        manifest,
        model.model,
        probe,
        tensors=tensors,
        threads=threads,
        advance=lambda done, total: report("operators", done, total),
    )
    verdict, reasons = _verdict(judged, findings, tensors)
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
        cases=judged,
        continuations=greedily,
        layers=layers,
        tensors=tensors,
        findings=findings,
        worst_tokens=worst_tokens(main, trials[0], tokenizer) if generates else (),
        kl_by_position=by_position(main, trials[0]) if generates else (),
        logits=pairs(main),
        references=references,
        not_compared=tuple(left_out),
        tools=_tools(),
        machine=f"{platform.machine()}, {platform.system()}, {usable_cpus()} processors",
        command=_command(artifact, name, options, device),
    )


def _case(trial: Trial, session: Session, model: Source, tally: Tally, limits: tuple[Limit, ...]) -> Case:
    try:
        for index, first, rows in blocks(trial.run(session)):
            passage = trial.passages[index]
            following = passage.tokens[first + 1 : first + 1 + len(rows)] if model.task == "text-generation" else None
            wanted = model.outputs(passage, first, len(rows))
            tally.add(wanted, rows, following=following, passage=index, first=first)
            del wanted, rows  # the next pass needs the memory
    except InputError as error:
        if trial.may_refuse and PADDING_ERROR in str(error):
            return Case(trial.name, trial.what, "faithful", refused=REFUSED)
        return Case(trial.name, trial.what, "broken", refused=str(error), reasons=("the artifact does not run",))
    figures = tally.figures()
    verdict, reasons = judge(figures, limits)
    return Case(trial.name, trial.what, verdict, figures, reasons=reasons)


def _verdict(
    cases: tuple[Case, ...], findings: tuple[Finding, ...], tensors: tuple[TensorError, ...]
) -> tuple[Verdict, tuple[str, ...]]:
    """The worst of everything, and why; a weight that is not the source's breaks a copy whatever its outputs say."""
    faults = [tensor for tensor in tensors if tensor.fault is not None]
    verdicts: list[Verdict] = [finding.verdict for finding in findings]
    verdicts += ["broken"] * len(faults)
    verdicts += [case.verdict for case in cases]
    # Causes before symptoms.
    reasons = [f"{finding.module}: {finding.cause}" for finding in findings]
    reasons += [f"{tensor.name}: {tensor.fault}" for tensor in faults]
    reasons += [f"{case.name}: {reason}" for case in cases if case.verdict != "faithful" for reason in case.reasons]
    return worst(verdicts), tuple(dict.fromkeys(reasons))


def _parameters(checkpoint: Checkpoint) -> int:
    return sum(int(np.prod(info.shape, dtype=np.int64)) for info in checkpoint.tensors.values())


def _text_in_words(options: CheckOptions, tokenizer: Tokenizer | None, texts: list[Tokens]) -> str:
    what = "the text that comes with intaglio" if options.text is None else options.text.name
    if tokenizer is None:
        what = "random tokens, for want of a tokenizer"
    return f"{what}: {len(texts)} windows of {texts[0].size} tokens"


def _tools() -> dict[str, str]:
    return {
        "intaglio": __version__,
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "numpy": metadata.version("numpy"),
        "onnxruntime": import_onnxruntime().__version__,
    }


def _command(artifact: str | Path, source: str, options: CheckOptions, device: Device) -> str:
    words = ["intaglio", "parity", str(artifact), "--source", source]
    words += ["--text", str(options.text)] if options.text is not None else []
    default = CheckOptions()
    for option, value, usual in (
        ("--windows", options.windows, default.windows),
        ("--window", options.window, default.window),
        ("--steps", options.steps, default.steps),
        ("--max-length", options.longest, default.longest),
    ):
        words += [option, str(value)] if value != usual else []
    for measure, limit in options.limits.items():
        words += ["--limit", f"{measure}={limit:g}"]
    words += ["--reference", options.reference] if options.reference else []
    words += ["--device", device] if device != "cpu" else []
    return shlex.join(words)
