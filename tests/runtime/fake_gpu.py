"""A GPU for tests: ONNX Runtime's CPU provider behind ``device="cuda"``, with a memory that the host cannot read.

    with_gpu = fake_gpu.install(monkeypatch)
    model = load(folder, device="cuda")

It counts the bytes that go to the device and to the host, by the name of the input or output. What CUDA does not allow,
or does otherwise than the CPU, fails here or is done as CUDA does it:

* a value on the device has no ``numpy()``;
* an address that is bound as memory of the device must lie in a value that was allocated there;
* host arrays are copied when they are bound, so that what is written to them later is not seen.
"""

import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from intaglio.artifact import Manifest
from intaglio.machine import GpuMemory
from intaglio.runtime.engine.opening import open_session
from intaglio.runtime.engine.session import Session
from numpy.typing import NDArray

SHRINKAGE = "memory.enable_memory_arena_shrinkage"
NAME = "Fake GPU"


class DeviceValue:
    """An OrtValue on the device."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def numpy(self) -> NDArray[Any]:
        raise AssertionError(f"the host reads {self.real.shape()} from the device")

    def data_ptr(self) -> int:
        return int(self.real.data_ptr())

    def shape(self) -> list[int]:
        return list(self.real.shape())

    def element_type(self) -> int:
        return int(self.real.element_type())

    def holds(self, address: int, size: int) -> bool:
        """Return True where the bytes from an address on are in this value."""
        begin = self.data_ptr()
        return begin <= address and address + size <= begin + self.real.tensor_size_in_bytes()


class FakeGpu:
    """What was moved, and the memory that is free."""

    def __init__(self) -> None:
        self.to_device: Counter[str] = Counter()
        self.to_host: Counter[str] = Counter()
        self.trims = 0
        self.values: weakref.WeakSet[DeviceValue] = weakref.WeakSet()
        self.memory: GpuMemory | None = None
        self.providers: list[Any] = []

    def forget(self) -> None:
        """Begin to count again."""
        self.to_device.clear()
        self.to_host.clear()

    def moved(self) -> set[str]:
        """Return the names of all inputs and outputs that were moved."""
        return set(self.to_device) | set(self.to_host)

    def value(self, real: Any) -> DeviceValue:
        """Return a value on the device."""
        found = DeviceValue(real)
        self.values.add(found)
        return found

    def check(self, address: int, size: int) -> None:
        """Check that memory is on the device."""
        assert any(value.holds(address, size) for value in self.values), "host memory is bound as memory of the device"


class FakeBinding:
    """An IOBinding whose device is the fake one."""

    def __init__(self, real: Any, gpu: FakeGpu) -> None:
        self.real, self.gpu = real, gpu
        self.outputs: dict[str, str] = {}  # the device of each
        self.kept: dict[str, Any] = {}

    def bind_cpu_input(self, name: str, array: NDArray[Any]) -> None:
        self.gpu.to_device[name] += array.nbytes
        self.real.bind_cpu_input(name, array.copy())

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        if isinstance(value, DeviceValue):
            self.kept[name] = value
            self.real.bind_ortvalue_input(name, value.real)
        else:
            copied = value.numpy().copy()
            self.gpu.to_device[name] += copied.nbytes
            self.real.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(copied))

    def bind_input(self, name: str, device: str, index: int, element: Any, shape: Sequence[int], address: int) -> None:
        assert device == "cuda"
        self.gpu.check(address, prod(shape) * np.dtype(element).itemsize)
        self.real.bind_input(name, "cpu", index, element, shape, address)

    def bind_output(
        self,
        name: str,
        device: str = "cpu",
        index: int = 0,
        element: Any = None,
        shape: Sequence[int] | None = None,
        address: int | None = None,
    ) -> None:
        if address is not None and shape is not None and device == "cuda":
            self.gpu.check(address, prod(shape) * np.dtype(element).itemsize)
        self.outputs[name] = device
        self.real.bind_output(name, "cpu", index, element, shape, address)

    def get_outputs(self) -> list[Any]:
        found = zip(self.outputs.values(), self.real.get_outputs(), strict=True)
        return [self.gpu.value(value) if device == "cuda" else value for device, value in found]


class FakeSession:
    """An InferenceSession on the fake device."""

    def __init__(self, gpu: FakeGpu, model: Any, options: Any, *, providers: list[Any], **rest: Any) -> None:
        gpu.providers.append(providers)
        assert [provider[0] for provider in providers] == ["CUDAExecutionProvider"]
        self.real = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], **rest)
        self.gpu = gpu

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_inputs(self) -> Any:
        return self.real.get_inputs()

    def get_overridable_initializers(self) -> Any:
        return self.real.get_overridable_initializers()

    def get_outputs(self) -> Any:
        return self.real.get_outputs()

    def io_binding(self) -> FakeBinding:
        return FakeBinding(self.real.io_binding(), self.gpu)

    def run_with_iobinding(self, binding: FakeBinding, options: Any = None) -> None:
        self.gpu.trims += options is not None and has_entry(options)
        self.real.run_with_iobinding(binding.real)
        for (name, device), value in zip(binding.outputs.items(), binding.real.get_outputs(), strict=True):
            if device == "cpu":
                self.gpu.to_host[name] += value.tensor_size_in_bytes()

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        found = self.real.run(outputs, feeds)
        self.gpu.to_device.update({name: array.nbytes for name, array in feeds.items()})
        return [np.asarray(array) for array in found]

    def run_with_ort_values(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
        found = {name: value.real if isinstance(value, DeviceValue) else value for name, value in feeds.items()}
        return list(self.real.run_with_ort_values(outputs, found))  # on the host, where no device is named


class FakeOrt:
    """The module ``onnxruntime`` with the fake device."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.OrtValue = self

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, model: Any, options: Any, **rest: Any) -> FakeSession:  # noqa: N802
        return FakeSession(self.gpu, model, options, **rest)

    def ortvalue_from_numpy(self, array: NDArray[Any], device: str = "cpu", index: int = 0) -> Any:
        if device == "cpu":
            return onnxruntime.OrtValue.ortvalue_from_numpy(array)
        self.gpu.to_device["a value"] += array.nbytes
        return self.gpu.value(onnxruntime.OrtValue.ortvalue_from_numpy(array.copy()))


def has_entry(options: Any) -> bool:
    """Return True where an arena is to be shrunk after a run; it must be the GPU's."""
    try:
        return bool(options.get_run_config_entry(SHRINKAGE) == "gpu:0")
    except RuntimeError:
        return False


def install(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """Let ``device="cuda"`` be the fake device, which has kernels for float32, as the CPU."""
    gpu = FakeGpu()
    opening = "intaglio.runtime.engine.opening"
    monkeypatch.setattr(f"{opening}.import_onnxruntime", lambda: FakeOrt(gpu))
    monkeypatch.setattr(f"{opening}.check_precision", lambda *_: None)
    for module in (opening, "intaglio.runtime.engine.session"):
        monkeypatch.setattr(f"{module}.gpu_memory", lambda: gpu.memory)
    return gpu


def open_folder(folder: Path, manifest: Manifest) -> Session:
    """Open a folder on the fake device by a manifest that its files need not agree with."""
    return open_session(folder, manifest, device="cuda")
