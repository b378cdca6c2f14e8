"""The forms in which models of these families and their relatives write tool calls.

<tool_call>{"name": "f", "arguments": {...}}</tool_call>           Qwen2.5, Qwen3, EXAONE 4.0
<tools>{"name": "f", "arguments": {...}}</tools>                   Qwen2.5-Coder
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f     DeepSeek-R1 and its distilled Qwen2 models
```json
{...}
```<｜tool▁call▁end｜><｜tool▁calls▁end｜>
"""

from dataclasses import dataclass

from .json_scanner import JsonScanner

SEPARATOR = "<｜tool▁sep｜>"
FENCE = "```"


@dataclass(frozen=True)
class CallFormat:
    """The tags around a call.

    Attributes:
        opening, closing: the tags.
        ends: the other tags that end a call: a model may open one without closing the last.
        certain: what is between the tags is a call, if a broken one. Otherwise it may be text.
    """

    opening: str
    closing: str
    ends: tuple[str, ...]
    certain: bool = True


HERMES = CallFormat("<tool_call>", "</tool_call>", ("<tool_call>",))
CODER = CallFormat("<tools>", "</tools>", (), certain=False)
DEEPSEEK = CallFormat("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", ("<｜tool▁call▁begin｜>", "<｜tool▁calls▁end｜>"))
FORMATS = (HERMES, CODER, DEEPSEEK)

WRAPPERS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
"""Tags around several calls; they say nothing that the calls do not."""


class TaggedCallScanner:
    """Finds the tag that ends a call: the first one outside the strings of its JSON."""

    def __init__(self, format: CallFormat) -> None:
        self.format = format
        self._tags = (format.closing, *format.ends)
        self._json = JsonScanner()
        self._position = 0

    def end(self, text: str) -> tuple[int, str] | None:
        """Return the position of the tag and the tag, or None if it is not there yet.

        ``text`` must start with the text of the previous call; each character is scanned once.
        """
        while self._position < len(text):
            character = text[self._position]
            if character == "<" and not self._json.in_string:
                rest = text[self._position : self._position + max(map(len, self._tags))]
                for tag in self._tags:
                    if rest.startswith(tag):
                        return self._position, tag
                if any(tag.startswith(rest) for tag in self._tags):
                    return None
            self._json.push(character)
            self._position += 1
        return None


def split_objects(body: str) -> list[str]:
    """Return the JSON objects of a body, if it is nothing but several and white space; else the body alone."""
    found = []
    scanner = JsonScanner()
    start = 0
    for position, character in enumerate(body):
        if scanner.depth == 0 and not character.isspace() and character != "{":
            return [body]
        if scanner.depth == 0 and character == "{":
            start = position
        before = scanner.depth
        scanner.push(character)
        if before and scanner.depth == 0:
            found.append(body[start : position + 1])
    return found if len(found) > 1 and scanner.depth == 0 else [body]


def split_separated(body: str) -> tuple[str, str]:
    """Return the name and the JSON of the arguments of DeepSeek's form; the kind before the name is left out.

    Newer models write the name before the separator and the arguments, without a fence, after it.
    """
    before, _, after = body.partition(SEPARATOR)
    if FENCE not in after:
        name, arguments = (before, after) if after.lstrip().startswith("{") else after.strip().partition("\n")[::2]
        return name.strip(), arguments.strip()
    name, _, fenced = after.partition(FENCE)
    arguments = fenced.strip().removeprefix("json").rstrip()
    return name.strip(), arguments.removesuffix(FENCE).strip()
