"""A model that generates given texts, with the chat templates of the trained checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from intaglio.files.chat.template import read_chat_format
from intaglio.runtime import ChatReply, Generation
from intaglio.runtime.chat.chat import ChatStream, finish, stream_chat
from intaglio.runtime.sequence.stream import TextStream
from intaglio.runtime.text.tokenizer import load_tokenizer

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


class Scripted:
    """A mock of a model: streams one of ``texts`` per prompt, character by character, and records the prompts."""

    def __init__(self, family: str, texts: Sequence[str], reason: str = "eos") -> None:
        self.format = read_chat_format(CHECKPOINTS / family)
        self.tokenizer = load_tokenizer(CHECKPOINTS / family)
        self.texts = list(texts)
        self.prompts: list[str] = []
        self.options: dict[str, Any] = {}
        self._reason = reason

    def stream(self, prompt: list[int], **options: Any) -> TextStream[Generation]:
        self.prompts.append(self.tokenizer.backend.decode(prompt, skip_special_tokens=False))
        self.options = options
        text = self.texts.pop(0)
        done = Generation(text, (1, 2), tuple(prompt), self._reason)  # type: ignore[arg-type]
        return TextStream((character for character in text), lambda: done)

    def stream_chat(self, messages: Any, **options: Any) -> ChatStream:
        return stream_chat(self, self.format, self.tokenizer, messages, options)  # type: ignore[arg-type]

    def chat(self, messages: Any, **options: Any) -> ChatReply:
        return finish(self.stream_chat(messages, **options))
