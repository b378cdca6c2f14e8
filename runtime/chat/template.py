"""Chat templates: the prompt that a conversation becomes, byte for byte as transformers 5.23 renders it.

    chat_format = read_chat_format(folder)
    chat_format.render([{"role": "user", "content": "hi"}], tools=[...], enable_thinking=True)

The template is ``chat_template.jinja``, or ``chat_template`` of tokenizer_config.json: one template, or several with
names, of which ``tool_use`` serves when there are tools. It runs in a sandbox, within a budget (``sandbox``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from ...errors import ArtifactError, IntaglioError, PromptError, UsageError
from ..folder import read_json
from .tool_schema import tool_schemas

Message = Mapping[str, Any]

REASONING = ("reasoning_content", "thinking", "reasoning")
"""What a message's thought may be called. Templates read the first."""

TAG = "CONTINUE_FINAL_MESSAGE_TAG "
PREFIXES = 64  # so many beginnings of a conversation are tried for the message that a template fails on


@dataclass(frozen=True)
class ChatFormat:
    """A checkpoint's chat templates by name, and the special tokens that they may write.

    ``place`` is what messages call the folder.
    """

    place: str
    templates: Mapping[str, str] = field(default_factory=dict)
    special_tokens: Mapping[str, str] = field(default_factory=dict)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template: str | None = None,
        **variables: Any,
    ) -> str:
        """The prompt.

        Args:
            messages: each with ``role`` and ``content``, or with ``tool_calls``.
            tools: JSON schemas, or functions with type hints and a docstring that describes each argument.
            documents: for templates that know them.
            add_generation_prompt: end with the beginning of the assistant's turn; with continue_final_message, never.
            continue_final_message: leave the last message's turn open, for the model to go on with its text.
            template: the name of one of several templates.
            variables: anything else that the template asks for, such as ``enable_thinking``.

        Raises:
            ArtifactError: no template; one that is no jinja; one that asks for more than a template may have.
            PromptError: messages that are none, or that the template fails on: which, and why.
            UsageError: a tool that cannot be described, or a template's name that there is not.
        """
        source = self._source(template, with_tools=tools is not None)
        plain = [_message(message, index) for index, message in enumerate(_listed(messages))]
        final = _open_final(plain, source) if continue_final_message else None
        given = {
            **self.special_tokens,
            **{name: _plain(value) for name, value in variables.items()},
            "tools": None if tools is None else _plain(tool_schemas(tools)),
            "documents": None if documents is None else _plain(list(documents)),
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
        }
        text = self._run(source, plain, given)
        return text if final is None else _cut_at_tag(text, final)

    def _source(self, name: str | None, *, with_tools: bool) -> str:
        if not self.templates:
            raise ArtifactError(
                f"{self.place} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); "
                "put one beside the checkpoint and export the model again, or give `generate` the whole prompt"
            )
        known = ", ".join(sorted(self.templates))
        if name is not None and name not in self.templates:
            raise UsageError(f"{self.place} has no chat template {name!r}; it has {known}")
        for choice in (name, "tool_use" if with_tools else None, "default"):
            if choice is not None and choice in self.templates:
                return self.templates[choice]
        raise UsageError(f"{self.place} has several chat templates and none is the default; choose one of {known}")

    def _run(self, source: str, messages: list[dict[str, Any]], given: Mapping[str, Any]) -> str:
        try:
            return self._render(source, messages, given)
        except IntaglioError:
            raise
        except Exception as error:
            reason = _reason(error)
        index = self._culprit(source, messages, given, reason)
        raise PromptError(
            f"{self.place}: its chat template fails on message {index} of {len(messages)}, "
            f"role {messages[index]['role']!r}: {reason}; change the message to what the template takes"
        )

    def _render(self, source: str, messages: list[dict[str, Any]], given: Mapping[str, Any]) -> str:
        # jinja2 is loaded for the first conversation, not with the package.
        import jinja2

        from .sandbox import sandbox
        from .sandbox.budget import TemplateLimitError

        try:
            sandbox.compiled(source)
        except TemplateLimitError as error:
            raise self._refused(str(error)) from None
        except jinja2.TemplateSyntaxError as error:
            raise ArtifactError(
                f"{self.place}: its chat template cannot be read: line {error.lineno}: {error.message}; "
                "mend the checkpoint's file and export the model again"
            ) from None
        except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
            raise self._refused(f"it cannot be compiled ({_reason(error)})") from None
        try:
            return sandbox.render(source, {**given, "messages": messages})
        except (TemplateLimitError, jinja2.exceptions.SecurityError) as error:
            raise self._refused(str(error)) from None

    def _refused(self, reason: str) -> ArtifactError:
        return ArtifactError(
            f"{self.place}: its chat template is refused: {_short(reason)}; "
            "take the checkpoint's own template, and see who changed it"
        )

    def _culprit(self, source: str, messages: list[dict[str, Any]], given: Mapping[str, Any], reason: str) -> int:
        """The index of the message with which the failure comes: the last of the shortest beginning that has it."""
        for count in range(1, min(len(messages), PREFIXES)):
            try:
                self._render(source, messages[:count], given)
            except IntaglioError:
                break
            except Exception as error:
                if _reason(error) == reason:
                    return count - 1
        return len(messages) - 1


def read_chat_format(folder: Path) -> ChatFormat:
    """The templates and special tokens of an artifact; without a template, a format that says so when it is used.

    Raises:
        ArtifactError: a file that cannot be read, or a ``chat_template`` that is neither text nor named texts.
    """
    config = read_json(folder / "tokenizer_config.json")
    templates = _templates(config.get("chat_template"), folder / "tokenizer_config.json")
    path = folder / "chat_template.jinja"
    if path.is_file():  # it wins over the entry, as in transformers
        try:
            templates = {"default": path.read_text(encoding="utf-8")}
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read ({error}); export the model again") from None
    tokens: dict[str, str | None] = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    if config.get("tokenizer_class") not in ("Qwen2Tokenizer", "Qwen2TokenizerFast"):
        tokens = {}  # those are that class's own defaults
    tokens |= {name: _content(config.get(name)) for name in config if name.endswith("_token")}
    if "added_tokens_decoder" not in config:
        later = read_json(folder / "special_tokens_map.json")
        tokens |= {name: _content(later[name]) for name in later if name.endswith("_token")}
    return ChatFormat(str(folder), templates, {name: text for name, text in tokens.items() if text is not None})


def _templates(entry: Any, path: Path) -> dict[str, str]:
    named = {"default": entry} if isinstance(entry, str) else entry or {}
    if isinstance(named, list) and all(isinstance(one, dict) and {"name", "template"} <= set(one) for one in named):
        named = {one["name"]: one["template"] for one in named}
    if not isinstance(named, dict) or not all(isinstance(one, str) for pair in named.items() for one in pair):
        raise ArtifactError(
            f"{path}: chat_template is neither a template nor a list of templates with names; "
            "mend the checkpoint's file and export the model again"
        )
    return named


def _content(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _listed(messages: Any) -> Sequence[Any]:
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise PromptError(
            f"a conversation is a list of messages, not {type(messages).__name__}; "
            'give [{"role": "user", "content": "..."}]'
        )
    if not messages:
        raise PromptError("the conversation is empty; give at least one message")
    return messages


def _message(message: Any, index: int) -> dict[str, Any]:
    """A copy of plain values, without what is None, and with its thought under every name that templates read."""
    found = _plain(message)
    if not isinstance(found, dict) or not isinstance(found.get("role"), str):
        raise PromptError(f'message {index} has no role; give {{"role": "user", "content": "..."}}')
    values = {name: value for name, value in found.items() if value is not None}
    content = values.get("content")
    if content is not None and not isinstance(content, str | list):
        raise PromptError(
            f"message {index}, role {values['role']!r}: its content is {type(content).__name__}; give text"
        )
    thought = next((values[name] for name in REASONING if values.get(name) is not None), None)
    return values if thought is None else {"thinking": thought, **values, "reasoning_content": thought}


def _plain(value: Any) -> Any:
    """Values of JSON's kinds only, so that nothing a template sees has methods beyond theirs."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # not the subclass's
    if isinstance(value, int | float):
        return int.__int__(value) if isinstance(value, int) else float.__float__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value] if isinstance(value, list) else tuple(map(_plain, value))
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if callable(item := getattr(value, "item", None)) and getattr(value, "shape", None) == ():
        return _plain(item())  # a numpy scalar
    if callable(dump := getattr(value, "model_dump", None)):
        return _plain(dump())  # a pydantic model
    return f"<{type(value).__name__}>"


def _open_final(messages: list[dict[str, Any]], source: str) -> str:
    """Mark the end of the last message's text, where the rendering will be cut; returns that text."""
    content = messages[-1].get("content")
    blocks = [block for block in content if isinstance(block, dict) and "text" in block] if content else []
    if isinstance(content, str):
        text, messages[-1] = content, {**messages[-1], "content": content + TAG}
    elif blocks:
        text = blocks[-1]["text"]
        blocks[-1]["text"] = text + TAG
    else:
        raise PromptError(
            f"message {len(messages) - 1}, role {messages[-1]['role']!r}, has no content to continue; give it text"
        )
    if "content" not in source:
        raise UsageError("continue_final_message: this chat template does not read a message's content")
    return str(text)


def _cut_at_tag(text: str, final: str) -> str:
    at = text.rfind(TAG.strip())
    if at < 0 or final.strip() not in text:
        raise PromptError(
            "continue_final_message: the last message's text does not appear in the prompt, "
            "because the chat template leaves it out or changes it; give a message that it keeps"
        )
    # A template that trims the message has trimmed the tag's space too, and would have trimmed what is before it.
    return text[:at] if text[at : at + len(TAG)] == TAG else text[:at].rstrip()


def _reason(error: BaseException) -> str:
    return _short(str(error)) or type(error).__name__


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"
