"""The guard around calls of other libraries, which may raise anything where a file is damaged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import IntaglioError, first_line


@contextmanager
def library_errors(make: Callable[[str], Exception]) -> Iterator[None]:
    """Turn every exception of the block into one of intaglio's; those that are already pass.

    A panic of a library in Rust (tokenizers, safetensors, llguidance) is a BaseException that no module exports.

    Args:
        make: returns the error for a reason, which is the first line of the exception's message.
    """
    try:
        yield
    except (IntaglioError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise make(first_line(error)) from None
