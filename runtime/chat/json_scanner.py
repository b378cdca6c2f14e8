"""A scanner for JSON that arrives in chunks: strings and nesting, without parsing values."""


class JsonScanner:
    """The state after the characters read so far.

    Attributes:
        in_string: the last character is inside a string, or opens one.
        depth: how many objects and arrays are open.
    """

    def __init__(self) -> None:
        self.in_string = False
        self.depth = 0
        self._escaped = False

    def push(self, character: str) -> None:
        """Read one character."""
        if self._escaped:
            self._escaped = False
        elif self.in_string:
            self._escaped = character == "\\"
            self.in_string = character != '"'
        elif character == '"':
            self.in_string = True
        elif character in "{[":
            self.depth += 1
        elif character in "}]":
            self.depth -= 1
