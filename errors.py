"""Every exception intaglio raises on purpose, and the first line of those it does not.

    IntaglioError
    ├── InputError                  exit code 2: the caller can correct it
    │   ├── UsageError              arguments that contradict each other or are out of range
    │   │   └── ConstraintError     a schema, a regular expression or a grammar that cannot be used
    │   ├── CheckpointError         a checkpoint folder that is damaged or incomplete
    │   ├── UnsupportedError        valid input that intaglio does not support: refused, never approximated
    │   ├── ArtifactError           an artifact folder that is damaged, incomplete or of another format version
    │   ├── OutputError             an output path that exists, is full or cannot be written
    │   ├── PromptError             text or token ids a model cannot take (empty, out of range)
    │   │   └── ContextLengthError  text or token ids that are longer than the context, or than there is room
    │   ├── HubError                a hub id that cannot be resolved or fetched
    │   └── DependencyError         a package that an extra of intaglio would have installed
    └── CheckError                  exit code 1: a check ran and failed

A message says what is wrong, where, and what to do, in that order.

``IntaglioWarning`` is the category of what does not end a call: results are right, but slower than they could be.
"""


class IntaglioError(Exception):
    """The root. ``exit_code`` is what the command line returns for it."""

    exit_code = 2


class InputError(IntaglioError):
    """Input from the caller that cannot be used."""


class UsageError(InputError):
    """Arguments that contradict each other or are out of range."""


class ConstraintError(UsageError):
    """A JSON schema, a regular expression or a grammar that cannot be used, or that no text fits."""


class CheckpointError(InputError):
    """A checkpoint folder that is damaged or incomplete."""


class UnsupportedError(InputError):
    """Valid input that intaglio does not support."""


class ArtifactError(InputError):
    """An artifact folder that is damaged, incomplete or of another format version."""


class OutputError(InputError):
    """An output path that exists, is full or cannot be written."""


class PromptError(InputError):
    """Text or token ids a model cannot take."""


class ContextLengthError(PromptError):
    """Text or token ids that are longer than the context, or than there is room."""


class HubError(InputError):
    """A hub id that cannot be resolved or fetched."""


class DependencyError(InputError):
    """A package that an extra of intaglio would have installed."""


class CheckError(IntaglioError):
    """A check ran and failed."""

    exit_code = 1


class IntaglioWarning(UserWarning):
    """Something that makes intaglio slower than it could be, said once in a process."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
