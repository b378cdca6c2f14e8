"""Opening a session over an artifact's graph: on intaglio's kernels where they can run, else on ONNX Runtime's."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ...artifact import Manifest
from ...contract import LOGITS_TO_KEEP, has_cache, input_names, output_names
from ...errors import ArtifactError, DependencyError, first_line
from ...machine import gpu_memory, usable_cpus
from ..graph.graph import Change, changed_graph
from ..graph.sliding import has_windows, with_window_caches
from ..graph.unsigned_weights import with_unsigned_weights
from ..kernels import (
    QMOE,
    changes_for,
    packed_weights,
    replaceable,
    saturates,
    session_on_intaglio_kernels,
    warn_without_library,
)
from ..kernels.edits.int8_cache import OPERATOR as INT8_CACHE
from ..kernels.weight_file import WeightFile
from .cache_choice import NO_ATTENTION, CacheChoice, choose_cache
from .onnxruntime import PROVIDERS, import_onnxruntime, is_out_of_memory, provider, session_options
from .refusals import check_choices, check_int8_cache, check_precision, check_provider, no_int8_kernel
from .session import Device, Kernels, KVCache, Session
from .sizes import check_gpu_memory, needs_windows

INTEGER_MATMUL = "com.microsoft::MatMulIntegerToFloat"


def open_session(
    folder: Path,
    manifest: Manifest,
    *,
    device: Device = "cpu",
    threads: int | None = None,
    arena: bool = True,
    windowed: bool = False,
    kernels: Kernels = "auto",
    kv_cache: KVCache = "exact",
    max_length: int | None = None,
    slots: int | None = None,
    weight_cache: Path | None = None,
    disabled_optimizers: Iterable[str] = (),
) -> Session:
    """Load the graph with its external data, which ONNX Runtime maps into memory.

    Args:
        threads: threads of one operator; None for every processor that this process may use.
        arena: keep the memory of a pass for the next one; False returns it to the system after each pass.
        windowed: keep only the window of sliding layers in their caches: always on the CPU, and on a GPU where the
            cache of the longest text would not fit otherwise.
        kernels: "auto" for intaglio's kernels where they are installed and fit the processor and the graph;
            "onnxruntime" for ONNX Runtime's.
        kv_cache: "exact" for the graph's element type; "int8" for a quarter of float32's memory, which needs intaglio's
            attention; "auto" for what ``choose_cache`` chooses for ``slots`` texts of ``max_length`` tokens.
        weight_cache: a folder for packed weights, which processes map and so share; None packs them into memory of
            this process. It is for quantized weights on intaglio's kernels, on Linux; others have no packed weights.
        disabled_optimizers: names of ONNX Runtime's graph optimizers to leave out. ONNX Runtime iterates over them
            once it has read the graph, and needs no Python after that: a generator learns of that moment.

    Raises:
        UsageError: an unknown device, choice of kernels or of cache, choices that exclude each other, or fewer than
            one thread.
        UnsupportedError: the device has no kernels for the artifact's precision, or an int8 cache or a folder for
            packed weights is not possible.
        OutputError: the folder for packed weights cannot be written.
        DependencyError: onnxruntime is missing, installed twice, or without CUDA.
        ArtifactError: ONNX Runtime refuses the graph, the graph lacks the inputs of its task, or memory does not
            suffice for the weights.
    """
    check_choices(device, threads, kernels, kv_cache, max_length, slots)
    if kv_cache == "int8":
        check_int8_cache(folder, manifest, device, kernels)
    check_precision(folder, manifest, device)
    ort = import_onnxruntime()
    check_provider(ort, device)
    count = threads if threads is not None else usable_cpus()
    gpu = None if device == "cpu" else gpu_memory()
    check_gpu_memory(folder, manifest, gpu)
    windowed = windowed and (can_be_windowed(manifest, device) or needs_windows(manifest, gpu))
    choice = None
    if kv_cache == "auto":
        choice = choose_cache(manifest, device, kernels, max_length=max_length, slots=slots or 1, windowed=windowed)
    int8_cache = kv_cache == "int8" or (choice is not None and choice.int8)
    opening = _Opening(ort, folder, manifest, device, count, arena, windowed, disabled_optimizers)
    operators = replaceable(manifest, int8_cache) if kernels == "auto" and device == "cpu" else ()
    weights = None
    if weight_cache is not None and "MatMulNBits" in operators:
        weights = packed_weights(weight_cache, folder / manifest.data)
    raw, replaced = _on_intaglio_kernels(opening, operators, weights, attention_required=int8_cache)
    if int8_cache and INT8_CACHE not in replaced:
        if choice is None:
            raise no_int8_kernel(folder)
        choice = CacheChoice(False, f"an int8 cache is not possible: {NO_ATTENTION}")
        operators = replaceable(manifest)
        raw, replaced = _on_intaglio_kernels(opening, operators, weights, attention_required=False)
    if raw is None:
        raw = _on_onnxruntime_kernels(opening)
        if operators:
            warn_without_library()
    if PROVIDERS[device] not in raw.get_providers():
        # onnxruntime falls back to the CPU without an error where CUDA's libraries are missing.
        raise DependencyError(
            f"{PROVIDERS[device]} could not be started; check the driver and the CUDA and cuDNN libraries"
            ", or use the CPU"
        )
    _check_names(raw, folder, manifest)
    reason = None if choice is None else choice.reason
    return Session(folder, manifest, device, count, ort, raw, windowed, replaced, reason)


def _check_names(raw: Any, folder: Path, manifest: Manifest) -> None:
    """Check that the graph has the inputs and outputs of the contract.

    Raises:
        ArtifactError: names the first that is missing.
    """
    layers = manifest.model.num_hidden_layers
    optional = [LOGITS_TO_KEEP] if has_cache(manifest.task) else []
    inputs = {value.name for value in (*raw.get_inputs(), *raw.get_overridable_initializers())}
    outputs = {value.name for value in raw.get_outputs()}
    missing = [f"input {name!r}" for name in (*input_names(manifest.task, layers), *optional) if name not in inputs]
    missing += [f"output {name!r}" for name in output_names(manifest.task, layers) if name not in outputs]
    if missing:
        raise ArtifactError(f"{folder / manifest.graph}: the graph has no {missing[0]}; export the model again")


def can_be_windowed(manifest: Manifest, device: Device) -> bool:
    """Return True where sliding layers of the artifact keep only their window on this device, whatever its memory."""
    return device == "cpu" and manifest.target == "ort" and has_windows(manifest.model)


@dataclass(frozen=True)
class _Opening:
    """The arguments of ``open_session`` that do not depend on the kernels."""

    ort: Any
    folder: Path
    manifest: Manifest
    device: Device
    threads: int
    arena: bool
    windowed: bool
    disabled_optimizers: Iterable[str]

    @property
    def path(self) -> Path:
        return self.folder / self.manifest.graph

    def graph(self, changes: Sequence[Change] = ()) -> tuple[str | bytes, Callable[[], Any]]:
        """Return the graph, as a path or with ``changes`` as bytes, and a factory of the session's options.

        Raises:
            OSError, ValueError: there are changes, and the file cannot be read, or is not a graph.
        """
        graph: str | bytes = str(self.path)
        weights = None
        if self.windowed:
            changes = (with_window_caches, *changes)
        if self.device == "cpu" and INTEGER_MATMUL in self.manifest.operators and saturates():
            changes = (*changes, with_unsigned_weights)
        if changes:
            graph, weights = changed_graph(self.path, self.folder / self.manifest.data, changes)

        def options() -> Any:
            found = session_options(self.ort, self.threads)
            found.enable_cpu_mem_arena = self.arena
            if self.device != "cpu":
                # Weights lie beside the arena, which would round each of its parts up.
                found.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
            if weights is not None:
                found.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
            return found

        return graph, options


def _on_intaglio_kernels(
    opening: _Opening, operators: tuple[str, ...], weights: WeightFile | None, attention_required: bool
) -> tuple[Any, tuple[str, ...]]:
    """Open a session whose ``operators`` run on intaglio's kernels, or fewer of them where one is declined.

    Returns:
        The session and the operators that run on intaglio's kernels; (None, ()) where all are declined, or the last
        one, attention, is declined and required, or the file is not a graph.
    """
    for wanted in choices(operators):
        if attention_required and operators[-1] not in wanted:
            continue
        try:
            graph, options = opening.graph(changes_for(wanted))
        except (OSError, ValueError):
            break
        raw = session_on_intaglio_kernels(opening.ort, graph, options, wanted, opening.disabled_optimizers, weights)
        if raw is not None:
            return raw, wanted
    return None, ()


def choices(operators: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return all choices of operators, the largest first: a node that one kernel refuses leaves the others to theirs.

    Of as many operators those come first that leave out QMoE, and then those that leave out attention.
    """
    rest = [name for name in operators[:-1] if name != QMOE]
    rank = {name: place for place, name in enumerate([*rest, *operators[-1:], QMOE])}
    found = [some for size in range(len(operators), 0, -1) for some in combinations(operators, size)]
    return sorted(found, key=lambda some: (-len(some), sorted(rank[name] for name in some)))


def _on_onnxruntime_kernels(opening: _Opening) -> Any:
    """Open a session on ONNX Runtime's kernels alone.

    Raises:
        ArtifactError: the graph cannot be read or loaded, or memory does not suffice.
    """
    ort, path = opening.ort, opening.path
    try:
        graph, options = opening.graph()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); check it with `intaglio verify`") from None
    try:
        return ort.InferenceSession(
            graph,
            options(),
            providers=[provider(opening.device)],
            disabled_optimizers=opening.disabled_optimizers,
        )
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        if is_out_of_memory(error):
            raise ArtifactError(
                f"{opening.folder}: not enough memory to load the model ({first_line(error)}); "
                "free some, or quantize the model to fewer bits"
            ) from None
        raise ArtifactError(
            f"{path}: ONNX Runtime {ort.__version__} cannot load it "
            f"({first_line(error)}); check it with `intaglio verify`, or export the model again"
        ) from None
