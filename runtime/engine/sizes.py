"""What an artifact takes of a device's memory: its weights, and its KV cache."""

from pathlib import Path

from ...artifact import Manifest, ModelFacts
from ...errors import ArtifactError
from ...machine import GpuMemory
from ..graph.sliding import has_windows, kept_positions
from ..kernels.edits.int8_cache import row_bytes

CACHE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
RESERVE = 128 << 20
"""Bytes that stay free, for the activations of a pass and for the program itself."""


def cache_bytes(facts: ModelFacts, tokens: int, *, windowed: bool, int8: bool = False) -> int:
    """Return the bytes of the keys and values of one sequence of ``tokens``.

    Args:
        windowed: sliding layers keep only their window and its slack.
        int8: keys and values are stored in 8 bits.
    """
    width = row_bytes(facts) if int8 else facts.head_dim * CACHE_BYTES[facts.cache_dtype]
    kept = kept_positions(facts.layer_windows, tokens) if windowed else tokens * facts.num_hidden_layers
    return int(2 * facts.num_key_value_heads * width * kept)


def check_gpu_memory(folder: Path, manifest: Manifest, found: GpuMemory | None) -> None:
    """Check that the weights fit into the free memory of a GPU, where that is known.

    Raises:
        ArtifactError: they do not.
    """
    weights = weight_bytes(manifest)
    if found is not None and weights > found.free:
        raise ArtifactError(
            f"{folder}: the weights take {weights / 1e6:,.0f} MB, and {found.free / 1e6:,.0f} MB of memory on "
            f"{found.name} are free; free some, load it with device='cpu', or quantize the model to fewer bits"
        )


def needs_windows(manifest: Manifest, found: GpuMemory | None) -> bool:
    """Return True where sliding layers on a GPU should keep only their window.

    That is where the cache of the longest text does not fit beside the weights otherwise: it saves memory alone, since
    CUDA's attention reads no more than the window anyway, and moves the whole buffer for each token once it is full.
    """
    facts = manifest.model
    if found is None or manifest.target != "ort" or not has_windows(facts):
        return False
    return weight_bytes(manifest) + cache_bytes(facts, facts.context_length, windowed=False) > found.free


def weight_bytes(manifest: Manifest) -> int:
    """Return the bytes of an artifact's weights in its file."""
    entry = manifest.files.get(manifest.data)
    return 0 if entry is None else entry.size
