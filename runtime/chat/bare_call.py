"""Calls that a model wrote without their tags.

Small models forget the tags that their template asks for: Qwen2 0.5B writes the JSON of a call alone, or in a fence of
Markdown. Such JSON is a call where it begins an answer, or follows a call, and names a tool.
"""

BEGINNINGS = tuple(lead + key for lead in ("{", "```{", "```json{") for key in ('"name"', '"arguments"'))
"""What the answer's first characters must be, space aside."""


class BareCall:
    """Follows streamed text for as long as it may be such a call."""

    def __init__(self) -> None:
        self._at = -1  # how far the JSON has been read
        self._depth = 0
        self._quoted = self._escaped = False

    def possible(self, text: str) -> bool:
        """Whether ``text`` begins like a call, or is too short to tell."""
        if self._at >= 0:
            return True
        start = "".join(text.split())[:20]
        if any(start.startswith(beginning) for beginning in BEGINNINGS):
            self._at = text.index("{")
            return True
        return any(beginning.startswith(start) for beginning in BEGINNINGS)

    def end(self, text: str) -> int | None:
        """The position behind the JSON object. ``text`` is that of the last time, or longer: it is read only once."""
        if self._at < 0:
            return None
        while self._at < len(text):
            character = text[self._at]
            self._at += 1
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = character == "\\"
                self._quoted = character != '"'
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return self._at
        return None
