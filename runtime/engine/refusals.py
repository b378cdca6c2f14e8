"""What an artifact cannot be loaded with, refused before its graph is read."""

from pathlib import Path
from typing import Any

from ...artifact import Manifest, Precision, Quantization
from ...contract import ACTIVATIONS
from ...errors import DependencyError, UnsupportedError, UsageError
from .onnxruntime import PROVIDERS
from .session import Device, Kernels, KVCache


def check_choices(
    device: Device,
    threads: int | None,
    kernels: Kernels,
    kv_cache: KVCache,
    max_length: int | None,
    slots: int | None,
) -> None:
    """Check the choices that mean the same for every artifact.

    Raises:
        UsageError: an unknown device, choice of kernels or of cache, fewer than one thread, token or slot, or a
            length or a number of slots although the cache is not to be chosen.
    """
    if device not in PROVIDERS:
        raise UsageError(f"unknown device {device!r}; use 'cpu' or 'cuda'")
    if kernels not in ("auto", "onnxruntime"):
        raise UsageError(f"unknown kernels {kernels!r}; use 'auto' or 'onnxruntime'")
    if kv_cache not in ("exact", "int8", "auto"):
        raise UsageError(f"unknown KV cache {kv_cache!r}; use 'exact', 'int8' or 'auto'")
    for name, value in (("max_length", max_length), ("slots", slots)):
        if value is not None and kv_cache != "auto":
            raise UsageError(f"{name} is for kv_cache='auto', not for kv_cache={kv_cache!r}; leave it out")
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")


def check_provider(ort: Any, device: Device) -> None:
    """Check that the installed onnxruntime has the device's execution provider.

    Raises:
        DependencyError: it was built without.
    """
    if PROVIDERS[device] not in ort.get_available_providers():
        raise DependencyError(
            f"this onnxruntime ({ort.__version__}) has no {PROVIDERS[device]}; "
            "pip uninstall onnxruntime, then pip install 'intaglio[gpu]'"
        )


def check_int8_cache(folder: Path, manifest: Manifest, device: Device, kernels: Kernels) -> None:
    """Check that an int8 KV cache fits the artifact and the other choices.

    Raises:
        UsageError: other kernels or another device are chosen, or the artifact has no KV cache.
        UnsupportedError: the artifact's target or activations have no int8 cache.
    """
    if kernels == "onnxruntime":
        raise UsageError("an int8 KV cache needs intaglio's own attention; leave out kernels='onnxruntime'")
    if device != "cpu":
        raise UsageError("an int8 KV cache is for device='cpu' only; leave it out on a GPU")
    if manifest.task != "text-generation":
        raise UsageError(f"{folder} is a {manifest.task} artifact, which has no KV cache; leave out kv_cache")
    facts = manifest.model
    if manifest.target != "ort" or facts.cache_dtype != "float32":
        raise UnsupportedError(
            f"{folder}: an int8 KV cache needs an artifact of target 'ort' with fp32 activations, and this one has "
            f"target {manifest.target!r} and {ACTIVATIONS[facts.cache_dtype]} activations; export the model again"
        )


def no_int8_kernel(folder: Path) -> UnsupportedError:
    """Return the error for a machine on which intaglio's attention cannot run."""
    return UnsupportedError(
        f"{folder}: an int8 KV cache needs intaglio's own attention, which needs a processor with AVX2, AVX-512 or "
        "NEON and a C compiler when intaglio is installed, and a head_dim that is a multiple of 16 up to 256; load the "
        "model without it"
    )


def check_precision(folder: Path, manifest: Manifest, device: Device) -> None:
    """Check that ONNX Runtime has kernels for the artifact's precision, and its blocks, on the device.

    A quantized artifact computes in the precision of its activations, which is the cache's too. An encoder, whose
    tokens attend to all others, has no GroupQueryAttention: its Attention of ai.onnx takes fp32 on CUDA.

    Raises:
        UnsupportedError: it has none.
    """
    if manifest.precision in ("int8", "int4"):
        computes_in: Precision = ACTIVATIONS[manifest.model.cache_dtype]
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
    if computes_in == "fp32" and device == "cuda" and manifest.target == "ort" and manifest.model.causal:
        raise UnsupportedError(
            f"{folder}: {kind}, target 'ort', cannot run on CUDA, where ONNX Runtime's GroupQueryAttention "
            f"takes fp16 and bf16 only; {to_cuda}"
        )
    found = [name for name, entry in manifest.tensors.items() if _fails_on_cuda(entry.quantization)]
    if device == "cuda" and manifest.target == "ort" and found:
        raise UnsupportedError(
            f"{folder}: {found[0]} has blocks of 256 for 4 bits, and ONNX Runtime's MatMulNBits on CUDA fails for them "
            "where one token is read; quantize the model with --block-size 32, 64 or 128"
        )


def _fails_on_cuda(quantization: Quantization | None) -> bool:
    """Return True for blocks that a decode step cannot have (ONNX Runtime 1.30: ``TryMatMul4BitsM1`` throws)."""
    return quantization is not None and quantization.bits == 4 and quantization.block_size == 256
