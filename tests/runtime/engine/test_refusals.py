"""Devices and precisions that an artifact cannot run with are refused before ONNX Runtime loads it."""

from dataclasses import replace
from pathlib import Path

import pytest
from intaglio.artifact import Quantization, TensorEntry, read_manifest
from intaglio.errors import DependencyError, UnsupportedError, UsageError
from intaglio.runtime import load
from intaglio.runtime.engine.refusals import check_precision
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import rewrite_manifest


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return fakes.language_model(tmp_path / "lm")


def test_bf16_has_no_kernels_on_the_cpu(artifact: Path) -> None:
    with pytest.raises(UnsupportedError) as error:
        load(rewrite_manifest(artifact, precision="bf16"))
    assert "a bf16 artifact cannot run on the CPU" in str(error.value)
    assert "load it with device='cuda', or export the model with --precision fp32" in str(error.value)


def test_fp32_group_query_attention_has_no_kernel_on_cuda(artifact: Path) -> None:
    with pytest.raises(UnsupportedError, match="takes fp16 and bf16 only; export the model with --precision fp16"):
        load(artifact, device="cuda")


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_quantized_artifact_is_refused_for_its_activations(artifact: Path, precision: str) -> None:
    model = read_manifest(artifact).model
    rewrite_manifest(artifact, precision=precision)
    assert load(artifact).manifest.precision == precision
    with pytest.raises(UnsupportedError) as error:
        load(artifact, device="cuda")
    assert str(error.value) == (
        f"{artifact}: an {precision} artifact of fp32 activations, target 'ort', cannot run on CUDA, where ONNX "
        "Runtime's GroupQueryAttention takes fp16 and bf16 only; quantize the model with --activations fp16"
    )
    rewrite_manifest(artifact, model=replace(model, cache_dtype="bfloat16"))
    with pytest.raises(UnsupportedError) as error:
        load(artifact)
    assert str(error.value) == (
        f"{artifact}: an {precision} artifact of bf16 activations cannot run on the CPU, for which ONNX Runtime has no "
        "bf16 kernels; load it with device='cuda', or quantize the model with --activations fp32"
    )


def test_a_quantized_artifact_of_half_precision_activations_is_not_refused_on_cuda(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    model = read_manifest(artifact).model
    for cache in ("float16", "bfloat16"):
        rewrite_manifest(artifact, precision="int4", model=replace(model, cache_dtype=cache))
        with pytest.raises(DependencyError, match="has no CUDAExecutionProvider"):
            load(artifact, device="cuda")


def test_a_device_that_is_unknown_or_unavailable(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown device 'tpu'; use 'cpu' or 'cuda'"):
        load(artifact, device="tpu")  # type: ignore[call-overload]
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DependencyError, match=r"has no CUDAExecutionProvider; .*'intaglio\[gpu\]'"):
        load(rewrite_manifest(artifact, precision="fp16"), device="cuda")


def test_blocks_of_256_for_4_bits_are_refused_on_cuda(artifact: Path) -> None:
    """ONNX Runtime throws there: TryMatMul4BitsM1 has kernels for 16, 32, 64 and 128."""
    model = replace(read_manifest(artifact).model, cache_dtype="float16")
    for bits, size, refused in ((4, 256, True), (4, 128, False), (8, 256, False)):
        quantization = Quantization(bits, size, True, "rtn", 0, 0.1, None)
        tensors = {"model.layers.0.mlp.up_proj.weight": TensorEntry("int4", (8, 512), (), quantization)}
        manifest = replace(read_manifest(artifact), precision="int4", model=model, tensors=tensors)
        check_precision(artifact, manifest, "cpu")
        if refused:
            with pytest.raises(UnsupportedError) as error:
                check_precision(artifact, manifest, "cuda")
            assert str(error.value) == (
                f"{artifact}: model.layers.0.mlp.up_proj.weight has blocks of 256 for 4 bits, and ONNX Runtime's "
                "MatMulNBits on CUDA fails for them where one token is read; quantize the model with --block-size 32, "
                "64 or 128"
            )
        else:
            check_precision(artifact, manifest, "cuda")
