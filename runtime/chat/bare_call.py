"""Tool calls that a model writes without their tags.

Small models forget the tags that their template asks for: Qwen2 0.5B writes the JSON of a call alone, or in a Markdown
code fence. Such JSON counts as a call if it starts an answer or follows another call, and names a known tool.
"""

from .json_scanner import JsonScanner

PREFIXES = tuple(fence + key for fence in ("{", "```{", "```json{") for key in ('"name"', '"arguments"'))
"""How a call without tags starts, whitespace removed."""

LONGEST_PREFIX = max(map(len, PREFIXES))


class BareCallScanner:
    """Finds the end of a call without tags in text that grows."""

    def __init__(self) -> None:
        self._json = JsonScanner()
        self._position = -1  # the next character to scan; negative until the prefix is complete

    def matches(self, text: str) -> bool:
        """Check that ``text`` starts as a call does, or is too short to tell."""
        if self._position >= 0:
            return True
        start = "".join(text.split())[:LONGEST_PREFIX]
        if start.startswith(PREFIXES):
            self._position = text.index("{")
            return True
        return any(prefix.startswith(start) for prefix in PREFIXES)

    def end(self, text: str) -> int | None:
        """Return the position after the JSON object, or None if it is not complete.

        ``text`` must start with the text of the previous call; each character is scanned once.
        """
        if self._position < 0:
            return None
        while self._position < len(text):
            self._json.push(text[self._position])
            self._position += 1
            if self._json.depth == 0:
                return self._position
        return None
