"""Small graphs that ONNX Runtime runs on a session's device: zeros, copies, slices and joins of what lies there.

They are how the memory of a GPU is allocated and edited without CUDA's own API: the inputs and outputs of a run are
bound to addresses on the device, and nothing goes to the host. The operators are those that ONNX Runtime's CUDA
provider has for every element type (OperatorKernels.md): ConstantOfShape, Identity, Gather, Concat.

The memory is in the arena of these graphs, which keeps what was freed for the next allocation. ``trim`` returns it to
the device, where the model's own arena can have it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.small_model import INT64, operation, small_model, zeros
from .onnxruntime import session_options

WORD = 8  # bytes of the elements that memory without a type is bound as

Failure = Callable[[Exception], Exception]


class SmallGraphs:
    """The small graphs of one session; each is loaded when it is first needed.

    Args:
        provider: the execution provider and its options, as ``InferenceSession`` takes them.
        failure: returns what to raise for an exception of ONNX Runtime.
    """

    def __init__(self, ort: Any, device: str, provider: Any, failure: Failure) -> None:
        self._ort = ort
        self._device = device
        self._provider = provider
        self._failure = failure
        self._loaded: dict[tuple[str | int, ...], Any] = {}

    def zeros(self, size: int, *, trim: bool = False) -> Any:
        """Return an OrtValue of ``size`` zero bytes on the device, a multiple of 8.

        Args:
            trim: then return memory that was freed to the device.
        """
        session = self._session("zeros", lambda: ([zeros("shape", "zeros", INT64, WORD)], {"shape": (INT64, 1)}, 1))
        binding = session.io_binding()
        binding.bind_cpu_input("shape", np.array([size // WORD], dtype=np.int64))
        return self._run(session, binding, ("zeros",), trim=trim)[0]

    def trim(self) -> None:
        """Return memory that was freed to the device."""
        self.zeros(WORD, trim=True)

    def copy(self, moves: Sequence[tuple[int, int, int]]) -> None:
        """Copy memory on the device; each move has the addresses of source and target and a multiple of 8 bytes."""
        count = len(moves)
        names = [(f"from.{index}", f"to.{index}") for index in range(count)]

        def make() -> tuple[list[Any], dict[str, tuple[int, int]], int]:
            nodes = [operation("Identity", [source], target) for source, target in names]
            return nodes, {source: (INT64, 1) for source, _ in names}, 1

        session = self._session("copy", make, count)
        binding = session.io_binding()
        for (source, target), (begin, end, size) in zip(names, moves, strict=True):
            binding.bind_input(source, self._device, 0, np.int64, [size // WORD], begin)
            binding.bind_output(target, self._device, 0, np.int64, [size // WORD], end)
        self._run(session, binding, ())

    def positions(self, value: Any, row: int, positions: NDArray[np.int64]) -> Any:
        """Return [1, K, n, E] of an OrtValue [B, K, P, E]: ``positions`` [n] of one row."""
        element = value.element_type()

        def make() -> tuple[list[Any], dict[str, tuple[int, int]], int]:
            nodes = [operation("Gather", ["x", "row"], "one", axis=0)]
            nodes.append(operation("Gather", ["one", "positions"], "part", axis=2))
            return nodes, {"x": (element, 4), "row": (INT64, 1), "positions": (INT64, 1)}, 4

        session = self._session("positions", make, element)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", value)
        binding.bind_cpu_input("row", np.array([row], dtype=np.int64))
        binding.bind_cpu_input("positions", np.ascontiguousarray(positions))
        return self._run(session, binding, ("part",))[0]

    def joined(self, values: Sequence[Any], width: int) -> Any:
        """Return [B, K, P, E] of B OrtValues [1, K, p, E], the shorter ones behind zeros.

        Args:
            width: bytes of an element.
        """
        element, count = values[0].element_type(), len(values)

        def make() -> tuple[list[Any], dict[str, tuple[int, int]], int]:
            nodes: list[Any] = []
            inputs: dict[str, tuple[int, int]] = {}
            for index in range(count):
                nodes.append(zeros(f"shape.{index}", f"zeros.{index}", element, width))
                nodes.append(operation("Concat", [f"zeros.{index}", f"x.{index}"], f"row.{index}", axis=2))
                inputs |= {f"shape.{index}": (INT64, 1), f"x.{index}": (element, 4)}
            nodes.append(operation("Concat", [f"row.{index}" for index in range(count)], "joined", axis=0))
            return nodes, inputs, 4

        session = self._session("joined", make, element, count)
        binding = session.io_binding()
        shapes = [value.shape() for value in values]
        longest = max(shape[2] for shape in shapes)
        for index, (value, (batch, heads, length, columns)) in enumerate(zip(values, shapes, strict=True)):
            before = np.array([batch, heads, longest - length, columns], dtype=np.int64)
            binding.bind_cpu_input(f"shape.{index}", before)
            binding.bind_ortvalue_input(f"x.{index}", value)
        return self._run(session, binding, ("joined",))[0]

    def _session(
        self,
        kind: str,
        make: Callable[[], tuple[list[Any], Mapping[str, tuple[int, int]], int]],
        *variant: int,
    ) -> Any:
        """Return the loaded graph of a kind; outputs are what no node reads, of the first input's element type."""
        key: tuple[str | int, ...] = (kind, *variant)
        if key not in self._loaded:
            nodes, inputs, rank = make()
            read = {name for node in nodes for name in node.inputs}
            element = next((element for name, (element, _) in inputs.items() if name.startswith("x")), INT64)
            outputs = {name.decode(): (element, rank) for node in nodes for name in node.outputs if name not in read}
            model = small_model(nodes, inputs, outputs)
            try:
                self._loaded[key] = self._ort.InferenceSession(
                    model, session_options(self._ort, 1), providers=[self._provider]
                )
            except Exception as error:  # onnxruntime's exceptions have no common class of their own
                raise self._failure(error) from error
        return self._loaded[key]

    def _run(self, session: Any, binding: Any, outputs: Sequence[str], *, trim: bool = False) -> list[Any]:
        """Run a graph; return those outputs, which are allocated on the device."""
        for name in outputs:
            binding.bind_output(name, self._device, 0)
        options = self._ort.RunOptions()
        if trim:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "gpu:0")
        try:
            session.run_with_iobinding(binding, options)
        except Exception as error:  # as above
            raise self._failure(error) from error
        return list(binding.get_outputs()) if outputs else []
