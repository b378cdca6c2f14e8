"""The text of a calibration file: plain text, or lines of JSON that hold chats or texts."""

import hashlib
from pathlib import Path
from typing import Any

from ....errors import IntaglioError, UsageError
from ....files.chat.template import ChatFormat, read_chat_format
from ....files.json_file import parse_json

LINES = ".jsonl"
FORM = 'each line is an object with "messages", and perhaps "tools", or with "text"'


def read_text(path: Path, folder: Path) -> tuple[str, str]:
    """Return a file's text, and the file's SHA-256 in hex.

    Of a ``.jsonl`` file the text is that of its lines, one after the other. A line's ``messages`` are rendered by the
    chat template of the checkpoint in ``folder``, with the line's ``tools``; its ``text`` is taken as it is.

    Raises:
        UsageError: the file cannot be read; or a line is not of this form, or the template fails on it. The message
            names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give a text file as --calibration") from None
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text in UTF-8; give a text file as --calibration") from None
    digest = hashlib.sha256(data).hexdigest()
    return (_Lines(path, folder).text(text) if path.suffix.lower() == LINES else text), digest


class _Lines:
    """The lines of a file; the chat template is read with the first chat."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self._format: ChatFormat | None = None

    def text(self, lines: str) -> str:
        # str.splitlines would also divide at characters that JSON allows in strings.
        texts = [self._text(line, number) for number, line in enumerate(lines.split("\n"), 1) if line.strip()]
        return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts)

    def _text(self, line: str, number: int) -> str:
        where = f"{self.path}, line {number}"
        try:
            value = parse_json(line)
        except ValueError as error:
            raise UsageError(f"{where}: not JSON ({error}); {FORM}") from None
        if not isinstance(value, dict) or not {"messages", "text"} & value.keys():
            raise UsageError(f'{where}: it has neither "messages" nor "text"; {FORM}')
        if "messages" in value:
            return self._render(value, where)
        if not isinstance(value["text"], str):
            raise UsageError(f'{where}: "text" is not a string; {FORM}')
        return value["text"]

    def _render(self, chat: dict[str, Any], where: str) -> str:
        for name in ("messages", "tools"):
            if not isinstance(chat.get(name), list) and chat.get(name) is not None:
                raise UsageError(f'{where}: "{name}" is not a list; {FORM}')
        if not chat["messages"]:
            raise UsageError(f'{where}: "messages" is empty; leave the line out')
        try:
            template = self._template()
            if not template.templates:
                raise UsageError(
                    f"{where}: a chat, and {self.folder} has no chat template to render it with; add "
                    'chat_template.jinja, or give lines with "text"'
                )
            return template.render(chat["messages"], tools=chat.get("tools") or None, add_generation_prompt=False)
        except IntaglioError as error:
            if str(error).startswith(where):
                raise
            raise UsageError(f"{where}: {error}") from None

    def _template(self) -> ChatFormat:
        if self._format is None:
            self._format = read_chat_format(self.folder)
        return self._format
