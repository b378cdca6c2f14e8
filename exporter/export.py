"""From a checkpoint to an artifact: build the graph, write the weights, write the manifest."""

import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..artifact import (
    ATTENTIONS,
    MANIFEST,
    PRECISIONS,
    TARGETS,
    TASKS,
    Attention,
    CalibrationText,
    FileEntry,
    FloatPrecision,
    Manifest,
    Precision,
    Source,
    Target,
    Task,
    data_name,
    graph_name,
    sha256_file,
)
from ..contract import CACHE_DTYPES, LOGITS_TO_KEEP
from ..devices.libraries import GENAI_CONFIG
from ..devices.presets import DEVICES, DeviceName, form_for
from ..errors import UnsupportedError, UsageError
from ..files.embedding import FILE as EMBEDDING
from ..files.embedding import WEIGHTS as EMBEDDING_WEIGHTS
from ..files.generation_settings import FILE as GENERATION_CONFIG
from ..files.tokenizer_file import FILE as TOKENIZER
from ..hub import resolve
from ..known_options import refuses_unknown_options
from ..models.adapters.given import Adapter, find_adapters
from ..models.checkpoint import PATTERNS, Checkpoint, companions
from ..models.digest import Digest
from ..models.heads import check_task
from ..models.loading.parameters import note_on_left_out
from ..models.reading.options import ReadOptions
from .artifact_checkpoint import ArtifactCheckpoint
from .build import build_graph
from .companions.genai_config import genai_config
from .companions.generation_config import artifact_settings
from .companions.source_card import read_source_card
from .companions.transformers_js import FILE as CONFIG
from .companions.transformers_js import config_text
from .facts import model_facts, tools
from .fit_device import check_device, device_notes
from .passes.describe import describe
from .progress import Progress
from .quantize.options import QUANTIZED, QuantizedPrecision, QuantizeOptions
from .quantize.prepare import prepare, scratch_folder
from .quantize.solve import Quantizer
from .quantize.stored.as_it_is import AsItIs, prepare_stored
from .quantize.stored.weights import StoredWeights
from .sentence_transformers import PATTERNS as MODULE_PATTERNS
from .sentence_transformers import read_sentence_transformer
from .tokenizer import check_tokenizer
from .write import check_space, staged, weight_bytes, write_graph, write_weights


@refuses_unknown_options
def export(
    source: str | Path,
    out: str | Path,
    *,
    task: Task | Literal["auto"] = "auto",
    precision: Precision | Literal["auto"] = "auto",
    target: Target = "ort",
    options: QuantizeOptions | None = None,
    device: DeviceName | None = None,
    attention: Attention | None = None,
    ignore_auto_map: bool = False,
    ignore_adapter: bool = False,
    adapters: Sequence[Adapter | str | Path] = (),
    generation_config: str | Path | None = None,
    ignore_generation_keys: Sequence[str] = (),
    revision: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Export a checkpoint to an artifact folder.

    Args:
        source: a folder in Hugging Face layout, a GGUF file, a hub id (``org/name``, ``org/name@revision``, or
            ``org/name/file.gguf``), or an artifact that is not quantized.
        out: the folder to make.
        task: which head; "auto" takes the one that the checkpoint's architecture names.
        precision: of the weights. "auto" keeps those of a quantized checkpoint as they are, code for code, and is fp32
            for another; any other precision is made anew from their numbers. Activations and KV cache have the same
            where it is a float, and ``options.activations`` where weights are quantized. Logits are always float32.
        target: "ort" for ONNX Runtime's fused operators, "standard" for ai.onnx opset 24.
        options: how to quantize; for int8 and int4 only, and of a checkpoint's own codes ``activations`` and
            ``accuracy_level``.
        device: the device to make the graph and the weights for, in the form that its kernels want ("cuda", "webgpu",
            "directml", "qnn", "openvino"); None for a CPU. The artifact runs on a CPU all the same.
        attention: "bidirectional" where the checkpoint's own code lets tokens attend to later ones, as that of most
            embedding models does, or "causal"; None as config.json says. Not for text generation.
        ignore_auto_map: the checkpoint's own code, which ``auto_map`` in config.json names, changes nothing.
        ignore_adapter: export the full weights alone where the folder holds an adapter (LoRA) too.
        adapters: PEFT adapters to merge into the weights: folders or hub ids, or ``Adapter`` with a weight. Several
            are merged one after the other.
        generation_config: a file with the artifact's settings of text generation instead of the checkpoint's, in the
            format of generation_config.json.
        ignore_generation_keys: keys of those settings to leave out, such as one that is not supported.
        revision: branch, tag or commit of a hub id.
        force: replace ``out`` if it exists.
        progress: called with (stage, done, total).

    Returns:
        the manifest, as written to ``out/intaglio.json``.

    Raises:
        CheckpointError, UnsupportedError, ArtifactError, HubError: the source cannot be read or exported.
        OutputError: the destination cannot be written.
        UsageError: an unknown task, precision, target or device, or options that do not fit.
    """
    _check_choice("task", task, ("auto", *TASKS))
    _check_choice("precision", precision, ("auto", *PRECISIONS))
    _check_choice("target", target, TARGETS)
    if device is not None:
        _check_choice("device", device, DEVICES)
    if attention is not None:
        _check_choice("attention", attention, ATTENTIONS)
    if precision != "auto":
        _check_quantizes(precision, options)
    report = progress or (lambda stage, done, total: None)
    out = Path(out)
    with staged(out, force=force) as folder:
        located = resolve(source, revision=revision, patterns=(*PATTERNS, *MODULE_PATTERNS))
        found = find_adapters(adapters)
        reading = ReadOptions(attention, ignore_auto_map, ignore_adapter, adapters=found)
        checkpoint = open_source(located.folder, reading)
        chosen = checkpoint.task if task == "auto" else task
        check_task(checkpoint.config, chosen)
        as_it_is = None
        if precision == "auto":
            as_it_is = _as_it_is(checkpoint, chosen, target, options, device)
            precision = "fp32" if as_it_is is None else as_it_is.precision
        activations = _activations(precision, options, device)
        check_device(device, checkpoint.config, chosen, target, precision, activations, options)
        tokenizer = check_tokenizer(checkpoint.text_folder, checkpoint.config.vocab_size)
        modules = None
        if chosen == "feature-extraction":
            modules = read_sentence_transformer(checkpoint.folder, checkpoint.config.hidden_size)
        more = (note_on_left_out(checkpoint, chosen), tokenizer.note, as_it_is.note if as_it_is is not None else None)
        notes = (*checkpoint.notes, *(note for note in more if note is not None and note not in checkpoint.notes))
        settings = artifact_settings(
            checkpoint.folder, chosen, checkpoint.config.vocab_size, generation_config, ignore_generation_keys
        )
        with ExitStack() as stack:
            digest = None
            if not isinstance(checkpoint, ArtifactCheckpoint):
                digest = stack.enter_context(Digest(checkpoint))
            quantizer: Quantizer | StoredWeights | None = None if as_it_is is None else as_it_is.quantizer
            texts: tuple[CalibrationText, ...] = ()
            if quantizer is None and (precision == "int8" or precision == "int4"):
                options = options or QuantizeOptions()
                scratch = stack.enter_context(scratch_folder(out, resume=options.resume))
                quantizer, texts = prepare(checkpoint, chosen, target, precision, options, scratch, report, device)
            if isinstance(quantizer, Quantizer):
                notes = (*notes, *quantizer.notes)
            graph = build_graph(checkpoint, chosen, target, activations, report, quantizer, form_for(device))
            total = weight_bytes(graph)
            check_space(folder, total)
            done = 0

            def advance(count: int) -> None:
                nonlocal done
                done += count
                report("weights", done, total)

            weights = quantizer.checkpoint if quantizer is not None else checkpoint
            graph_file = graph_name(precision, CACHE_DTYPES[activations])
            data_file = data_name(graph_file)
            tensors, data = write_weights(graph, weights, folder / data_file, advance)
            operators = Counter(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in graph.model.graph)
            if isinstance(checkpoint, ArtifactCheckpoint):
                made_from = checkpoint.origin
            else:
                assert digest is not None
                card = read_source_card(checkpoint.folder)
                merged = tuple(adapter.record() for adapter in found)
                made_from = Source(located.id, located.revision, digest.wait(report), card, merged)
            padded_right = target == "ort" and checkpoint.config.causal
            describe(graph.model, checkpoint.config.family, chosen, target, precision, made_from, padded_right)
            write_graph(graph.model, folder / graph_file)
            for name, path in companions(checkpoint.folder, checkpoint.text_folder).items():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, folder / name)
            (folder / CONFIG).write_text(
                config_text(checkpoint.folder, chosen, precision, CACHE_DTYPES[activations], checkpoint.changed_config),
                encoding="utf-8",
            )
            if modules is not None:
                modules.write(folder)
            elif isinstance(checkpoint, ArtifactCheckpoint):
                for name in (EMBEDDING, EMBEDDING_WEIGHTS):
                    if (checkpoint.folder / name).is_file():
                        shutil.copyfile(checkpoint.folder / name, folder / name)
            if tokenizer.built is not None:
                (folder / TOKENIZER).write_text(tokenizer.built, encoding="utf-8")
            if settings is not None:
                (folder / GENERATION_CONFIG).write_text(settings, encoding="utf-8")
            model = model_facts(checkpoint.config, chosen, activations)
            if LOGITS_TO_KEEP in graph.model.graph.initializers:  # genai does not give this input
                config = genai_config(folder, model, checkpoint.config.family, target, graph_file)
                (folder / GENAI_CONFIG).write_text(config, encoding="utf-8")
        files = {
            name: data if name == data_file else FileEntry(sha256_file(folder / name), (folder / name).stat().st_size)
            for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        }
        manifest = Manifest(
            family=checkpoint.config.family,
            task=chosen,
            target=target,
            precision=precision,
            source=made_from,
            model=model,
            tensors=tensors,
            operators=dict(sorted(operators.items())),
            tools=tools(),
            files=files,
            notes=notes,
            calibration=texts,
        )
        if device is not None:
            manifest = replace(manifest, notes=(*notes, *device_notes(device, folder, manifest)))
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


@refuses_unknown_options
def quantize(
    source: str | Path,
    out: str | Path,
    *,
    precision: QuantizedPrecision = "int4",
    options: QuantizeOptions | None = None,
    task: Task | Literal["auto"] = "auto",
    target: Target = "ort",
    device: DeviceName | None = None,
    attention: Attention | None = None,
    ignore_auto_map: bool = False,
    ignore_adapter: bool = False,
    adapters: Sequence[Adapter | str | Path] = (),
    generation_config: str | Path | None = None,
    ignore_generation_keys: Sequence[str] = (),
    revision: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """``export`` with a precision of int8 or int4; arguments and errors as there."""
    _check_choice("precision", precision, QUANTIZED)
    return export(
        source,
        out,
        task=task,
        precision=precision,
        target=target,
        options=options,
        device=device,
        attention=attention,
        ignore_auto_map=ignore_auto_map,
        ignore_adapter=ignore_adapter,
        adapters=adapters,
        generation_config=generation_config,
        ignore_generation_keys=ignore_generation_keys,
        revision=revision,
        force=force,
        progress=progress,
    )


def open_source(folder: Path, options: ReadOptions) -> Checkpoint | ArtifactCheckpoint:
    """Open the checkpoint in a folder, or the one that an artifact was made from.

    Raises:
        UsageError: the artifact has another attention than the options give, or adapters are to be merged into it.
    """
    if not (folder / MANIFEST).exists():
        return Checkpoint(folder, options)
    if options.adapters:
        raise UsageError(
            f"{folder} is an artifact, and adapters are merged into a checkpoint's weights; give the checkpoint that "
            "it was made from"
        )
    checkpoint = ArtifactCheckpoint(folder)
    made = checkpoint.manifest.model.attention
    if options.attention not in (None, made):
        raise UsageError(
            f"{folder} was made with --attention {made}, not {options.attention}; leave the option out, or give the "
            "checkpoint"
        )
    return checkpoint


def _check_quantizes(precision: Precision, options: QuantizeOptions | None) -> None:
    """Check that options of a quantization are given to one."""
    if options is not None and precision not in QUANTIZED:
        raise UsageError(f"precision is {precision!r}, and quantization is for {' and '.join(QUANTIZED)}")


def _as_it_is(
    source: Checkpoint | ArtifactCheckpoint,
    task: Task,
    target: Target,
    options: QuantizeOptions | None,
    device: DeviceName | None,
) -> AsItIs | None:
    """Return the export of a source's own codes; None where it has none, and precision auto is fp32.

    Raises:
        UnsupportedError: weights that are stored quantized cannot be carried over.
    """
    found = None
    if isinstance(source, Checkpoint) and source.merged_quantized:
        names = source.merged_quantized
        raise UnsupportedError(
            f"{source.folder}: the adapters change {len(names)} weights that are stored quantized, first {names[0]}: "
            "with the change they are floats, which cannot be carried over as they are; give --precision fp32, int8 or "
            "int4 to export the merged model anew"
        )
    if isinstance(source, Checkpoint) and source.quantized:
        found = prepare_stored(source, task, target, options or QuantizeOptions(), device)
    if found is None:
        _check_quantizes("fp32", options)
    return found


def _activations(precision: Precision, options: QuantizeOptions | None, device: DeviceName | None) -> FloatPrecision:
    """Return the precision that the graph computes in."""
    if precision == "int8" or precision == "int4":
        return (options or QuantizeOptions()).computes_in(device)
    return precision


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
