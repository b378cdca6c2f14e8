"""Bytes of weights that one token of a mixture of experts reads, by part of the model.

They are those of the files. Both tools pack weights when they load them, into about as many bytes.
"""

from pathlib import Path

from intaglio.artifact import read_manifest
from intaglio.cli.inspection.active import Mixture, artifact_bytes, artifact_mixture, read_bytes
from intaglio.models.gguf.config import MIXTURE
from intaglio.models.gguf.experts import ROUTER
from intaglio.models.gguf.header import read_header
from intaglio.models.gguf.names import renamed


def bytes_per_token(path: Path) -> dict[str, int]:
    """Return the bytes of an intaglio artifact, or of a GGUF file.

    Raises:
        ValueError: it is no mixture.
    """
    if path.suffix == ".gguf":
        return _gguf_bytes(path)
    manifest = read_manifest(path)
    mixture = artifact_mixture(path, manifest)
    if mixture is None:
        raise ValueError(f"{path} has no experts")
    return artifact_bytes(manifest, mixture)


def _gguf_bytes(path: Path) -> dict[str, int]:
    header = read_header(path)
    count, chosen = (header.metadata.get(f"{MIXTURE}.{key}") for key in ("expert_count", "expert_used_count"))
    if not isinstance(count, int) or not isinstance(chosen, int):
        raise ValueError(f"{path} has no experts")
    layers = sum(name.endswith(f".{ROUTER}") for name in header.tensors)
    sizes = {name: tensor.nbytes for name, tensor in renamed(header.tensors, MIXTURE, path, count).items()}
    return read_bytes(sizes, Mixture(layers, count, chosen))
