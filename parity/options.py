"""The options of a check, and the command line that repeats it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError
from ..known_options import with_known_options
from ..runtime.engine.session import Device


@with_known_options
@dataclass(frozen=True)
class CheckOptions:
    """The text that is compared, and the limits.

    Args:
        text: a UTF-8 file that both sides read; None for the text that comes with intaglio.
        windows: number of windows of the text, of ``window`` tokens each.
        steps: tokens decoded one by one, and tokens of each greedy continuation.
        longest: longer sequences, such as a wide sliding window needs, are left out, and the report says so.
        limits: by measure (``kl_mean``, ``relative_error``, ``flips``), a limit beyond which the copy is broken.
        reference: "transformers" compares with transformers as well.
        verified: skip the checksums of the artifact and of the source, because both were written or read just now.
    """

    text: Path | None = None
    windows: int = 4
    window: int = 192
    steps: int = 32
    longest: int = 8192
    limits: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None
    verified: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: a value is out of its range.
        """
        for name, least in (("windows", 1), ("window", 8), ("steps", 1), ("longest", 8)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.reference not in (None, "transformers"):
            raise UsageError(f"reference is {self.reference!r}; the only one is 'transformers'")


def command_line(
    artifact: str | Path, source: str, options: CheckOptions, device: Device, adapters: Sequence[str] = ()
) -> str:
    """Return the shell command that makes the report again."""
    words = ["intaglio", "parity", str(artifact), "--source", source]
    for adapter in adapters:
        words += ["--adapter", adapter]
    words += ["--text", str(options.text)] if options.text is not None else []
    default = CheckOptions()
    for option, value, usual in (
        ("--windows", options.windows, default.windows),
        ("--window", options.window, default.window),
        ("--steps", options.steps, default.steps),
        ("--max-length", options.longest, default.longest),
    ):
        words += [option, str(value)] if value != usual else []
    for measure, limit in options.limits.items():
        words += ["--limit", f"{measure}={limit:g}"]
    words += ["--reference", options.reference] if options.reference else []
    words += ["--device", device] if device != "cpu" else []
    return shlex.join(words)
