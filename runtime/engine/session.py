"""An ONNX Runtime session over an artifact's graph, and every reason why there cannot be one."""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from ...artifact import GRAPH, Manifest
from ...contract import ACTIVATIONS, input_names
from ...errors import ArtifactError, DependencyError, InputError, PromptError, UnsupportedError, UsageError
from ..graph.graph import Change, changed_graph
from ..graph.sliding import has_windows, with_window_caches
from ..kernels import changes_for, replaceable, session_on_own_kernels
from ..kernels.edits.int8_cache import OPERATOR as INT8_CACHE
from ..kernels.edits.int8_cache import row_bytes
from .machine import usable_cpus

Device = Literal["cpu", "cuda"]
Kernels = Literal["auto", "onnxruntime"]
KVCache = Literal["auto", "int8"]
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
QUIET = 4  # severity "fatal": what goes wrong is raised, and warnings about its own fusions tell a user nothing


@dataclass(frozen=True)
class Session:
    """A loaded graph. ``raw`` is the ``onnxruntime.InferenceSession``, which several threads may run at once.

    ``own_kernels`` are the operators that run on runtime/kernels, not on ONNX Runtime's.

    ``windowed`` says that sliding layers take only buffers of ``windowed.window_capacity``; their past cannot grow.

    Running raises PromptError where memory does not suffice, and ArtifactError where ONNX Runtime refuses the graph.
    """

    folder: Path
    manifest: Manifest
    device: Device
    threads: int
    ort: Any
    raw: Any
    windowed: bool = False
    own_kernels: tuple[str, ...] = ()

    @property
    def cache_dtype(self) -> str:
        """The element type of the KV cache."""
        return "int8" if INT8_CACHE in self.own_kernels else self.manifest.model.cache_dtype

    @property
    def cache_columns(self) -> int:
        """Elements of a key or value in the KV cache: E, and what an int8 cache adds to them."""
        facts = self.manifest.model
        return row_bytes(facts) if self.cache_dtype == "int8" else facts.head_dim

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> list[NDArray[Any]]:
        """One pass over host arrays; used where nothing is kept between passes."""
        try:
            results: list[NDArray[Any]] = self.raw.run(list(outputs), dict(feeds))
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise self._failure(error) from error
        return results

    def run_values(self, feeds: Mapping[str, Any], outputs: tuple[str, ...]) -> list[Any]:
        """One pass over OrtValues, which may be of types that numpy lacks."""
        try:
            results: list[Any] = self.raw.run_with_ort_values(list(outputs), dict(feeds))
        except Exception as error:  # as above
            raise self._failure(error) from error
        return results

    def run_bound(self, binding: Any) -> None:
        """One pass over what an IOBinding binds."""
        try:
            self.raw.run_with_iobinding(binding)
        except Exception as error:  # as above
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> InputError:
        reason = _first_line(error)
        if _out_of_memory(error):
            return PromptError(f"not enough memory to run the model ({reason}); give less text, or fewer texts at once")
        return ArtifactError(
            f"{self.folder}: ONNX Runtime failed while running the model ({reason}); "
            "check the artifact with `intaglio verify`"
        )


def open_session(
    folder: Path,
    manifest: Manifest,
    *,
    device: Device = "cpu",
    threads: int | None = None,
    arena: bool = True,
    windowed: bool = False,
    kernels: Kernels = "auto",
    kv_cache: KVCache = "auto",
    disabled_optimizers: Iterable[str] = (),
) -> Session:
    """Load ``folder/model.onnx`` with its external data, which ONNX Runtime maps into memory.

    Args:
        threads: of one operator; None for every processor this process may use.
        arena: keep what a pass needed for the next one; without it, memory is given back at once.
        windowed: let sliding layers keep only their window, where the device can and there are any.
        kernels: "auto" for our own products with quantized weights and our own attention, where they are installed and
            fit the processor and the graph; "onnxruntime" for ONNX Runtime's.
        kv_cache: "auto" for the element type that the graph has; "int8" for a quarter of float32's memory, which takes
            our own attention. Sliding layers then keep all of their keys and values.
        disabled_optimizers: ONNX Runtime's names of those to leave out. They are asked for when it has read the graph;
            from there on it works without Python, which may do something else meanwhile.

    Raises:
        UsageError: an unknown device or choice of kernels or cache, choices that exclude each other, or fewer than one
            thread.
        UnsupportedError: the device has no kernels for the artifact's precision, or there can be no int8 cache.
        DependencyError: onnxruntime is missing, installed twice, or without CUDA.
        ArtifactError: ONNX Runtime refuses the graph, or the graph lacks the inputs of its task.
    """
    if device not in PROVIDERS:
        raise UsageError(f"unknown device {device!r}; use 'cpu' or 'cuda'")
    if kernels not in ("auto", "onnxruntime"):
        raise UsageError(f"unknown kernels {kernels!r}; use 'auto' or 'onnxruntime'")
    if kv_cache not in ("auto", "int8"):
        raise UsageError(f"unknown KV cache {kv_cache!r}; use 'auto' or 'int8'")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    if kv_cache == "int8":
        _check_int8_cache(folder, manifest, device, kernels)
    _check_precision(folder, manifest, device)
    ort = import_onnxruntime()
    if PROVIDERS[device] not in ort.get_available_providers():
        raise DependencyError(
            f"this onnxruntime ({ort.__version__}) has no {PROVIDERS[device]}; "
            "pip uninstall onnxruntime, then pip install 'intaglio[gpu]'"
        )
    count = threads if threads is not None else usable_cpus()
    windowed = windowed and can_be_windowed(manifest, device) and kv_cache == "auto"
    opening = _Opening(ort, folder, device, count, arena, windowed, disabled_optimizers)
    ours = replaceable(manifest, windowed, kv_cache == "int8") if kernels == "auto" and device == "cpu" else ()
    raw, own = _on_own_kernels(opening, ours, needed=kv_cache == "int8")
    if kv_cache == "int8" and INT8_CACHE not in own:
        raise UnsupportedError(
            f"{folder}: an int8 KV cache needs intaglio's own attention, which needs a processor with AVX-512 and a C "
            "compiler when intaglio is installed, and a head_dim that is a multiple of 16 up to 256; load the model "
            "without it"
        )
    if raw is None:
        raw = _on_onnxruntimes_kernels(opening)
    if PROVIDERS[device] not in raw.get_providers():
        # onnxruntime falls back to the CPU without an error where CUDA's libraries are missing.
        raise DependencyError(
            f"{PROVIDERS[device]} could not be started; check the driver and the CUDA and cuDNN libraries"
            ", or use the CPU"
        )
    given = {value.name for value in raw.get_inputs()}
    missing = [name for name in input_names(manifest.task, manifest.model.num_hidden_layers) if name not in given]
    if missing:
        raise ArtifactError(f"{folder / GRAPH}: the graph has no input {missing[0]!r}; export the model again")
    return Session(folder, manifest, device, count, ort, raw, windowed, own)


@dataclass(frozen=True)
class _Opening:
    """What is to be opened, whichever kernels compute it."""

    ort: Any
    folder: Path
    device: Device
    threads: int
    arena: bool
    windowed: bool
    disabled_optimizers: Iterable[str]

    def graph(self, changes: Sequence[Change] = ()) -> tuple[str | bytes, Callable[[], Any]]:
        """The graph with changes, and what makes options of a session over it.

        Raises:
            OSError, ValueError: there are changes, and the file cannot be read, or is no graph.
        """
        graph: str | bytes = str(self.folder / GRAPH)
        weights = None
        if self.windowed:
            changes = (with_window_caches, *changes)
        if changes:
            graph, weights = changed_graph(self.folder, changes)

        def options() -> Any:
            made = session_options(self.ort, self.threads)
            made.enable_cpu_mem_arena = self.arena
            if weights is not None:
                made.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
            return made

        return graph, options


def _on_own_kernels(opening: _Opening, wanted: tuple[str, ...], needed: bool) -> tuple[Any, tuple[str, ...]]:
    """A session, and which operators run on our kernels: all that are wanted, or one where another is declined.

    None and none where all are declined, or the last one, if it is ``needed``, or the graph is none.
    """
    fewer = (wanted[-1:],) if needed else (wanted[:1], wanted[1:])
    for operators in dict.fromkeys((wanted, *fewer)):
        try:
            graph, options = opening.graph(changes_for(operators))
        except (OSError, ValueError):
            break
        raw = session_on_own_kernels(opening.ort, graph, options, operators, opening.disabled_optimizers)
        if raw is not None:
            return raw, operators
    return None, ()


def _on_onnxruntimes_kernels(opening: _Opening) -> Any:
    ort, path = opening.ort, opening.folder / GRAPH
    try:
        graph, options = opening.graph()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); check it with `intaglio verify`") from None
    try:
        return ort.InferenceSession(
            graph,
            options(),
            providers=[PROVIDERS[opening.device]],
            disabled_optimizers=opening.disabled_optimizers,
        )
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        if _out_of_memory(error):
            raise ArtifactError(
                f"{opening.folder}: not enough memory to load the model ({_first_line(error)}); "
                "free some, or quantize the model to fewer bits"
            ) from None
        raise ArtifactError(
            f"{path}: ONNX Runtime {ort.__version__} cannot load it "
            f"({_first_line(error)}); check it with `intaglio verify`, or export the model again"
        ) from None


def _check_int8_cache(folder: Path, manifest: Manifest, device: Device, kernels: Kernels) -> None:
    """What can be said before the graph is read."""
    if kernels == "onnxruntime":
        raise UsageError("an int8 KV cache needs intaglio's own attention; leave out kernels='onnxruntime'")
    if device != "cpu":
        raise UsageError("an int8 KV cache is for device='cpu' only; leave it out on a GPU")
    if manifest.task != "text-generation":
        raise UsageError(f"{folder} is a {manifest.task} artifact, which has no KV cache")
    facts = manifest.model
    if manifest.target != "ort" or facts.cache_dtype != "float32":
        raise UnsupportedError(
            f"{folder}: an int8 KV cache takes an artifact of target 'ort' whose activations are fp32, and this one is "
            f"of target {manifest.target!r} and {ACTIVATIONS[facts.cache_dtype]}; export the model again"
        )


def can_be_windowed(manifest: Manifest, device: Device) -> bool:
    """Whether sliding layers of the artifact may keep only their window on this device."""
    return device == "cpu" and manifest.target == "ort" and has_windows(manifest.model)


def session_options(ort: Any, threads: int) -> Any:
    """What every session over a graph of ours has in common."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # the graph is a chain: there is nothing to run beside a node
    options.log_severity_level = QUIET
    return options


def import_onnxruntime() -> Any:
    """The module, or a DependencyError that says which extra installs it."""
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        raise DependencyError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; "
            "pip uninstall both, then pip install 'intaglio[cpu]' or 'intaglio[gpu]'"
        )
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise DependencyError(
            f"onnxruntime cannot be imported ({error}); "
            "pip install 'intaglio[cpu]', or 'intaglio[gpu]' for an NVIDIA GPU"
        ) from None


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _check_precision(folder: Path, manifest: Manifest, device: Device) -> None:
    """A quantized artifact computes in the precision of its activations, which is the cache's too."""
    if manifest.precision in ("int8", "int4"):
        computes_in = ACTIVATIONS[manifest.model.cache_dtype]
        kind = f"an {manifest.precision} artifact of {computes_in} activations"
        to_cpu, to_cuda = "quantize the model with --activations fp32", "quantize the model with --activations fp16"
    else:
        computes_in = manifest.precision
        kind = f"{'a' if computes_in == 'bf16' else 'an'} {computes_in} artifact"
        to_cpu = "export the model with --precision fp32"
        to_cuda = "export the model with --precision fp16 or bf16, or with --target standard"
    if computes_in == "bf16" and device == "cpu":
        raise UnsupportedError(
            f"{folder}: {kind} cannot run on the CPU, for which ONNX Runtime has no bf16 kernels; "
            f"load it with device='cuda', or {to_cpu}"
        )
    if computes_in == "fp32" and device == "cuda" and manifest.target == "ort":
        raise UnsupportedError(
            f"{folder}: {kind}, target 'ort', cannot run on CUDA, where ONNX Runtime's GroupQueryAttention "
            f"takes fp16 and bf16 only; {to_cuda}"
        )


def _out_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in text or "bad_alloc" in text


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
