"""One way to run three kinds of model: an ONNX graph (ours or onnxruntime-genai's), a GGUF file, an OpenVINO folder.

Ours and onnxruntime-genai's graphs have the same inputs and outputs and go through the same loop: a bare session with
everything bound once and, where the graph has GroupQueryAttention, one KV buffer that past and present share. This file
is also run by peers' own interpreters and imports nothing but numpy and the package that runs the model. Our graphs run
on our own kernels, as they do for their users.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Model(Protocol):
    def logits(self, tokens: Tokens) -> Floats:
        """Every position's logits of a text read from its beginning: [S] -> [S, V]."""

    def prefill(self, tokens: Tokens) -> int:
        """Forget what was read, read a prompt [S]; the most likely next token."""

    def step(self, token: int) -> int:
        """Read one token; the most likely next token."""


def open_model(path: Path, *, threads: int, capacity: int) -> Model:
    """Load what is at ``path``, for at most ``capacity`` positions."""
    if path.suffix == ".gguf":
        return LlamaModel(path, threads, capacity)
    if (path / "openvino_model.xml").is_file():
        return OpenVinoModel(path, threads)
    return OnnxModel(path, threads, capacity)


class OnnxModel:
    def __init__(self, folder: Path, threads: int, capacity: int) -> None:
        self._session = _own_session(folder, threads) or _session(folder, threads)
        inputs = {value.name: value for value in self._session.get_inputs()}
        optional = self._session.get_overridable_initializers()
        self._chooses = any(value.name == "logits_to_keep" for value in optional)
        self._caches = [name.removeprefix("past_key_values.") for name in inputs if name.startswith("past_key_values.")]
        past = inputs["past_key_values.0.key"]
        self._heads, self._width = past.shape[1], inputs["past_key_values.0.value"].shape[3]
        if not isinstance(self._width, int):  # onnxruntime-genai names this dimension; its configuration has the number
            import json

            self._width = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]["head_size"]
        self._dtype = TYPES[past.type]
        self._vocab = self._session.get_outputs()[0].shape[-1]
        self._capacity = capacity
        self._length = 0
        self._buffers = [self._empty(capacity) for _ in self._caches]
        self._token = np.zeros((1, 1), dtype=np.int64)
        self._mask = np.zeros((1, capacity), dtype=np.int64)
        self._logits = np.empty((1, 1, self._vocab), dtype=np.float32)
        self._step = self._bind(self._token, self._mask, self._logits)

    def logits(self, tokens: Tokens) -> Floats:
        feeds = {f"past_key_values.{name}": self._empty(0) for name in self._caches}
        feeds |= {"input_ids": tokens[None], "attention_mask": np.ones((1, tokens.size), dtype=np.int64)}
        if self._chooses:
            feeds["logits_to_keep"] = np.zeros(1, dtype=np.int64)
        found: Floats = self._session.run(["logits"], feeds)[0][0]
        return found

    def prefill(self, tokens: Tokens) -> int:
        kept = 1 if self._chooses else tokens.size
        logits = np.empty((1, kept, self._vocab), dtype=np.float32)
        mask = np.ones((1, tokens.size), dtype=np.int64)
        self._session.run_with_iobinding(self._bind(np.ascontiguousarray(tokens[None]), mask, logits))
        self._length = tokens.size
        self._mask[:] = np.arange(self._capacity) < self._length
        return int(logits[0, -1].argmax())

    def step(self, token: int) -> int:
        self._token[0, 0] = token
        self._mask[0, self._length] = 1
        self._length += 1
        self._session.run_with_iobinding(self._step)
        return int(self._logits[0, 0].argmax())

    def _bind(self, tokens: Tokens, mask: Tokens, logits: Floats) -> Any:
        binding = self._session.io_binding()
        for name, buffer in zip(self._caches, self._buffers, strict=True):
            place = ("cpu", 0, self._dtype, list(buffer.shape), buffer.ctypes.data)
            binding.bind_input(f"past_key_values.{name}", *place)
            binding.bind_output(f"present.{name}", *place)
        binding.bind_cpu_input("input_ids", tokens)
        binding.bind_cpu_input("attention_mask", mask)
        binding.bind_output("logits", "cpu", 0, np.float32, list(logits.shape), logits.ctypes.data)
        return binding

    def _empty(self, positions: int) -> NDArray[Any]:
        return np.zeros((1, self._heads, positions, self._width), dtype=self._dtype)


def _own_session(folder: Path, threads: int) -> Any:
    """The session that our runtime opens over an artifact of ours; None for a peer's."""
    if not (folder / "intaglio.json").is_file():
        return None
    from intaglio.artifact import read_manifest
    from intaglio.runtime.engine.opening import open_session

    return open_session(folder, read_manifest(folder), threads=threads).raw


def _session(folder: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


class LlamaModel:
    """llama.cpp through llama-cpp-python. All logits are asked for only where they are read."""

    def __init__(self, path: Path, threads: int, capacity: int) -> None:
        from llama_cpp import Llama

        self._open = lambda everything: Llama(
            str(path),
            n_ctx=capacity,
            n_batch=capacity,
            n_ubatch=512,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=everything,
            verbose=False,
        )
        self._llama = self._open(False)
        self._everything = False

    def logits(self, tokens: Tokens) -> Floats:
        if not self._everything:
            self._llama, self._everything = self._open(True), True
        self._llama.reset()
        self._llama.eval(tokens.tolist())
        return np.array(self._llama.scores[: tokens.size], dtype=np.float32)

    def prefill(self, tokens: Tokens) -> int:
        self._llama.reset()
        return self._read(tokens.tolist())

    def step(self, token: int) -> int:
        return self._read([token])

    def _read(self, tokens: list[int]) -> int:
        from llama_cpp import llama_get_logits_ith

        self._llama.eval(tokens)
        last = llama_get_logits_ith(self._llama.ctx, -1)
        return int(np.ctypeslib.as_array(last, shape=(self._llama.n_vocab(),)).argmax())


class OpenVinoModel:
    """The stateful model that optimum-intel writes, through OpenVINO's own runtime."""

    def __init__(self, folder: Path, threads: int) -> None:
        import openvino

        model = openvino.Core().read_model(folder / "openvino_model.xml")
        # Arithmetic as the CPU plugin chooses by itself for text generation: int8 activations, an 8-bit KV cache.
        compiled = openvino.compile_model(
            model, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        )
        self._request = compiled.create_infer_request()
        self._names = {name for value in compiled.inputs for name in value.get_names()}
        self._length = 0

    def logits(self, tokens: Tokens) -> Floats:
        self._request.reset_state()
        self._length = 0
        return np.array(self._read(tokens)[0], dtype=np.float32)

    def prefill(self, tokens: Tokens) -> int:
        self._request.reset_state()
        self._length = 0
        return int(self._read(tokens)[0, -1].argmax())

    def step(self, token: int) -> int:
        return int(self._read(np.array([token], dtype=np.int64))[0, -1].argmax())

    def _read(self, tokens: Tokens) -> Floats:
        end = self._length + tokens.size
        feeds = {
            "input_ids": tokens[None],
            "attention_mask": np.ones((1, end), dtype=np.int64),
            "position_ids": np.arange(self._length, end, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        self._request.infer({name: value for name, value in feeds.items() if name in self._names})
        self._length = end
        found: Floats = self._request.get_tensor("logits").data
        return found
