"""A GGUF file, or all parts of a split one, as one header."""

from pathlib import Path

from ...errors import CheckpointError
from ...files.gguf_files import parts
from ...files.json_fields import JSONFields
from .header import Header, StoredTensor, read_header

COUNT, NUMBER, TENSORS = "split.count", "split.no", "split.tensors.count"
MOST_PARTS = 1000


class Metadata(JSONFields):
    """Metadata by key, typed and checked; every error names the file and the key."""

    def bad(self, key: str, expected: str) -> CheckpointError:
        """Return the error of a key whose value is not what is expected, or of one that is missing."""
        return CheckpointError(f"{super().bad(key, expected)}; fetch the file again")


def read_parts(path: Path) -> tuple[tuple[Path, ...], Header]:
    """Return the files, the metadata of the first part, and the tensors of all.

    Args:
        path: a GGUF file, or any part of a split one.

    Raises:
        CheckpointError, UnsupportedError: as ``read_header``; or a part is missing, or parts do not belong together.
    """
    names = parts(path.name)
    if names is None:
        header = read_header(path)
        count = Metadata(header.metadata, str(path)).integer(COUNT)
        if count not in (None, 0, 1):
            raise CheckpointError(
                f"{path} is one of {count:,} parts of a split file, and its name does not say which; give it its name, "
                "NAME-00001-of-00003.gguf"
            )
        return (path,), header
    if not 1 <= len(names) <= MOST_PARTS:
        raise CheckpointError(f"{path}: its name says that it has {len(names):,} parts; at most {MOST_PARTS} are read")
    files = tuple(path.with_name(name) for name in names)
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise CheckpointError(
            f"{path}: {len(missing)} of {len(files)} parts are missing, first {missing[0]}; fetch them"
        )
    headers = [read_header(file) for file in files]
    tensors: dict[str, StoredTensor] = {}
    for number, (file, header) in enumerate(zip(files, headers, strict=True)):
        fields = Metadata(header.metadata, str(file))
        if fields.integer(COUNT) != len(files) or fields.integer(NUMBER) != number:
            raise CheckpointError(
                f"{file}: it is part {number} (from 0) of {len(files)} by its name, and part {fields.get(NUMBER)} of "
                f"{fields.get(COUNT)} by its metadata; fetch the parts again"
            )
        twice = tensors.keys() & header.tensors.keys()
        if twice:
            raise CheckpointError(f"{file}: tensor {min(twice)} is in another part too; fetch the parts again")
        tensors |= header.tensors
    total = Metadata(headers[0].metadata, str(files[0])).integer(TENSORS)
    if total != len(tensors):
        raise CheckpointError(
            f"{files[0]}: the parts have {len(tensors):,} tensors, and its metadata says {total}; fetch the parts again"
        )
    return files, Header(headers[0].metadata, tensors)
