"""Every exception intaglio raises on purpose, and the first line of those it does not.

    IntaglioError
    ├── InputError                  exit code 2: the caller can mend it
    │   ├── UsageError              arguments that contradict each other or are out of range
    │   ├── CheckpointError         a checkpoint folder that is damaged or incomplete
    │   ├── UnsupportedError        sound input whose mathematics intaglio cannot express: refused, never approximated
    │   ├── ArtifactError           an artifact folder that is damaged, incomplete or of another format version
    │   ├── OutputError             the place to write to: it exists, is full, or cannot be written
    │   ├── PromptError             text or token ids a model cannot take (empty, too long, out of range)
    │   ├── HubError                a hub id that cannot be resolved or fetched
    │   └── DependencyError         a package that an extra of intaglio would have installed
    └── CheckError                  exit code 1: a check ran and its answer is no

A message names the thing, the place and the remedy, in that order.
"""


class IntaglioError(Exception):
    """The root. ``exit_code`` is what the command line returns for it."""

    exit_code = 2


class InputError(IntaglioError):
    """Something the caller gave cannot be used."""


class UsageError(InputError):
    """Arguments that contradict each other or are out of range."""


class CheckpointError(InputError):
    """A checkpoint folder that is damaged or incomplete."""


class UnsupportedError(InputError):
    """Sound input whose mathematics intaglio cannot express."""


class ArtifactError(InputError):
    """An artifact folder that is damaged, incomplete or of another format version."""


class OutputError(InputError):
    """The place to write to: it exists, is full, or cannot be written."""


class PromptError(InputError):
    """Text or token ids a model cannot take."""


class HubError(InputError):
    """A hub id that cannot be resolved or fetched."""


class DependencyError(InputError):
    """A package that an extra of intaglio would have installed."""


class CheckError(IntaglioError):
    """A check ran and its answer is no."""

    exit_code = 1


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type's name where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
