"""Regular expressions of an adapter's config, matched as peft matches them.

An adapter may come from anyone, and a regular expression may take exponential time. Those are read in which no group
is repeated and few repetitions are unbounded; the names that they are matched against are short.
"""

import re
from collections.abc import Iterable, Mapping

from ...errors import UnsupportedError
from ...files.json_fields import shown

LONGEST = 4096
MOST_PATTERNS = 8192
MOST_REPEATS = 6
_REPEATED_GROUP = re.compile(r"\)\??[*+{]")
_REPEAT = re.compile(r"(?<!\\)[*+]|(?<!\\)\{")
_REFERENCE = re.compile(r"\\[1-9]|\(\?P=|\(\?\(")


def compiled(pattern: str, where: str, *, anywhere: bool = False) -> re.Pattern[str]:
    """Return a pattern that matches whole names; ``anywhere``: names that end with a whole part that it matches.

    Raises:
        UnsupportedError: it is not a regular expression, or one whose time is not bounded.
    """
    hostile = (
        len(pattern) > LONGEST
        or _REPEATED_GROUP.search(pattern)
        or _REFERENCE.search(pattern)
        or len(_REPEAT.findall(pattern)) > MOST_REPEATS
    )
    if hostile:
        raise UnsupportedError(
            f"{where}: the pattern {shown(pattern)} repeats a group, refers to one or has more than {MOST_REPEATS} "
            "repetitions, so that its time is not bounded; write the names of the modules as a list"
        )
    try:
        return re.compile(rf"(?:.*\.)?(?:{pattern})" if anywhere else pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UnsupportedError(f"{where}: {shown(pattern)} is not a regular expression ({error}); correct it") from None


class PatternTable:
    """Values by pattern, as ``rank_pattern`` and ``alpha_pattern``: the first pattern that matches counts."""

    def __init__(self, values: Mapping[str, float], where: str) -> None:
        """Compile the patterns.

        Raises:
            UnsupportedError: there are too many, or one is refused.
        """
        if len(values) > MOST_PATTERNS:
            raise UnsupportedError(f"{where} has {len(values):,} patterns; at most {MOST_PATTERNS:,} are read")
        self.patterns = [(compiled(key, where, anywhere=True), value) for key, value in values.items()]

    def get(self, module: str, default: float) -> float:
        """Return the value of a module, by its whole path."""
        return next((value for pattern, value in self.patterns if pattern.fullmatch(module)), default)


class NameList:
    """The modules that ``target_modules`` and ``exclude_modules`` name: a regular expression, or a list of endings."""

    def __init__(self, given: str | Iterable[str], where: str) -> None:
        self.pattern = compiled(given, where) if isinstance(given, str) else None
        self.names = frozenset() if isinstance(given, str) else frozenset(given)

    def __contains__(self, module: str) -> bool:
        if self.pattern is not None:
            return self.pattern.fullmatch(module) is not None
        parts = module.split(".")
        return any(".".join(parts[start:]) in self.names for start in range(len(parts)))
