"""A call of a tool while the model writes it: its name, and its arguments as they come."""

from dataclasses import dataclass, field

from ....runtime.chat.call_grammar import arguments_start
from ....runtime.chat.json_scanner import JsonScanner


@dataclass
class OpenCall:
    """Reads the text of one call that fits its grammar; ``push`` takes all of it so far."""

    name: str | None = None
    _json: JsonScanner = field(default_factory=JsonScanner)
    _position: int = 0
    _ended: bool = False

    def push(self, text: str) -> str:
        """Return what is new of the arguments; ``name`` is set once it is certain."""
        if self.name is None:
            found = arguments_start(text)
            if found is None:
                return ""
            self.name, self._position = found
        start = self._position
        while self._position < len(text) and not self._ended:
            self._json.push(text[self._position])
            self._position += 1
            self._ended = self._json.depth == 0
        return text[start : self._position]
