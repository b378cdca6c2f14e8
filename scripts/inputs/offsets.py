"""The time of offsets of blocks in ONNX Runtime: as a second product, and as zero points that are floats.

    python -m intaglio.scripts.inputs.offsets

MatMulNBits multiplies activations [1, M, K] by a weight of 4 bits in blocks of 32, on one thread, for M of 1 and 128.
"""

import time
from typing import Any

import click
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

K = N = 2048
SIZE = 32
BLOCKS = K // SIZE
LENGTHS = (1, 128)
KINDS = ("symmetric", "offsets", "float zero points")
MICROSOFT = "com.microsoft"


def session(kind: str, accuracy_level: int) -> ort.InferenceSession:
    """Return a graph of one weight; ``kind`` is one of ``KINDS``."""
    generator = np.random.default_rng(0)

    def uniform(*shape: int) -> NDArray[np.float32]:
        return generator.random(shape, dtype=np.float32)

    codes = generator.integers(0, 256, (N, BLOCKS, SIZE // 2), dtype=np.uint8)
    stored: dict[str, NDArray[Any]] = {"codes": codes, "scales": uniform(N, BLOCKS)}
    inputs, after = ["x", "codes", "scales"], []
    if kind == "float zero points":
        stored["zero_points"] = 15 * uniform(N, BLOCKS)
        inputs.append("zero_points")
    if kind == "offsets":
        stored |= {"shape": np.array([0, 0, BLOCKS, SIZE]), "axes": np.array([-1]), "offsets": uniform(BLOCKS, N)}
        after = [
            helper.make_node("Reshape", ["x", "shape"], ["blocks"]),
            helper.make_node("ReduceSum", ["blocks", "axes"], ["sums"], keepdims=0),
            helper.make_node("MatMul", ["sums", "offsets"], ["moved"]),
            helper.make_node("Add", ["product", "moved"], ["y"]),
        ]
    product = helper.make_node(
        "MatMulNBits",
        inputs,
        ["product" if after else "y"],
        domain=MICROSOFT,
        K=K,
        N=N,
        bits=4,
        block_size=SIZE,
        accuracy_level=accuracy_level,
    )
    graph = helper.make_graph(
        [product, *after],
        "offsets",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "M", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "M", N])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def milliseconds(run: ort.InferenceSession, length: int) -> float:
    """Return the least time of several runs."""
    x = np.random.default_rng(1).standard_normal((1, length, K), dtype=np.float32)
    times = []
    for _ in range(12 if length == 1 else 5):
        started = time.perf_counter()
        run.run(None, {"x": x})
        times.append(time.perf_counter() - started)
    return 1e3 * min(times)


@click.command(help=__doc__)
def main() -> None:
    for accuracy_level in (4, 0):
        for kind in KINDS:
            run = session(kind, accuracy_level)
            times = ", ".join(f"{milliseconds(run, length):.2f} ms for {length}" for length in LENGTHS)
            click.echo(f"accuracy level {accuracy_level}, {kind}: {times}")


if __name__ == "__main__":
    main()
