"""Chat templates: render a conversation to a prompt, byte for byte as transformers 5.23 does.

    chat_format = read_chat_format(folder)
    chat_format.render([{"role": "user", "content": "hi"}], tools=[...], enable_thinking=True)

The templates are ``chat_template.jinja`` and ``additional_chat_templates/NAME.jinja``; without such files, the
``chat_template`` of tokenizer_config.json: one template, or several with names. Of several, ``tool_use`` is used if
there are tools, ``default`` otherwise, and any other by its name. A template runs in a sandbox with limits on time and
memory (``sandbox``).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ...artifact import TEMPLATE_FOLDER
from ...errors import ArtifactError, IntaglioError, PromptError, UsageError
from ...known_options import nearest
from ..json_file import read_object
from ..regular_file import read_regular
from ..tokenizer_file import named_tokens
from .forms import misshown, variants
from .messages import Message, cut_at_marker, mark_final_text, normalize_messages, plain_value
from .tool_schema import tool_schemas

MAX_TEMPLATE_BYTES = 1 << 20  # the longest published templates have 30 KB
MAX_PREFIXES = 64  # conversation prefixes that are rendered to find the message on which a template fails


@dataclass(frozen=True)
class ChatFormat:
    """A checkpoint's chat templates by name, and the special tokens that they may use.

    ``name`` identifies the artifact in error messages.
    """

    name: str
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
        """Return the prompt.

        Args:
            messages: each with ``role`` and ``content``, or with ``tool_calls``.
            tools: JSON schemas, or functions with type hints and a docstring that describes each argument.
            documents: for templates that read them.
            add_generation_prompt: end with the start of the assistant's turn; ignored with continue_final_message.
            continue_final_message: leave the last message's turn open, so that the model continues its text.
            template: the name of one of several templates.
            variables: further variables of the template. It must read them, except ``enable_thinking``.

        Raises:
            ArtifactError: there is no template, it is not valid Jinja, or it exceeds the sandbox's limits.
            PromptError: a message is malformed, or the template fails on it.
            UsageError: a tool has no schema, there is no template of that name, or the template does not read the
                tools, the documents or a variable.
        """
        source = self._select(template, with_tools=tools is not None)
        self._check_read(source, variables, tools=bool(tools), documents=bool(documents))
        plain_messages = normalize_messages(messages)
        plain_variables = {
            **self.special_tokens,
            **{name: plain_value(value) for name, value in variables.items()},
            "tools": None if tools is None else plain_value(tool_schemas(tools)),
            "documents": None if documents is None else plain_value(list(documents)),
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
        }
        return self._render_best(source, plain_messages, plain_variables, continue_final_message)

    def reads(self, variable: str, *, with_tools: bool = False) -> bool:
        """Return True where the template reads a variable.

        Raises:
            ArtifactError, UsageError: as ``render``, where no template can be used.
        """
        source = self.source(with_tools=with_tools)
        self._compile(source)
        return variable in _sandbox().names_read(source)

    def source(self, template: str | None = None, *, with_tools: bool = False) -> str:
        """Return the text of the template that ``render`` uses; errors as there."""
        return self._select(template, with_tools=with_tools)

    def _render_best(
        self, source: str, messages: list[dict[str, Any]], variables: Mapping[str, Any], continue_final: bool
    ) -> str:
        """Render the messages in the form that the template shows best, the given one first.

        Raises:
            ArtifactError, PromptError, UsageError: as ``render``, where the template takes none.
        """
        best: tuple[int, str] | None = None
        form, failure = messages, None
        for form in variants(messages):
            try:
                prompt = self._render_form(source, form, variables, continue_final)
            except ArtifactError:
                raise
            except Exception as error:
                failure = error
                continue
            amiss = misshown(messages, prompt)
            if best is None or amiss < best[0]:
                best = amiss, prompt
            if amiss == 0:
                break
        if best is not None:
            return best[1]
        if isinstance(failure, IntaglioError):
            raise failure
        reason = _reason(failure)
        index = self._find_failing_message(source, form, variables, reason)
        raise PromptError(
            f"{self.name}: its chat template fails on message {index} of {len(form)}, "
            f"role {form[index]['role']!r}: {reason}; change the message to one that the template accepts"
        )

    def _render_form(
        self, source: str, messages: list[dict[str, Any]], variables: Mapping[str, Any], continue_final: bool
    ) -> str:
        """Render the messages in one form; exceptions of the template pass through."""
        if not continue_final:
            return self._run(source, messages, variables)
        final_text = mark_final_text(messages, source)
        return cut_at_marker(self._run(source, messages, variables), final_text)

    def _select(self, name: str | None, *, with_tools: bool) -> str:
        if not self.templates:
            raise ArtifactError(
                f"{self.name} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); "
                "put one beside the checkpoint and export the model again, or give `generate` the whole prompt"
            )
        known = ", ".join(sorted(self.templates))
        if name is not None and name not in self.templates:
            raise UsageError(f"{self.name} has no chat template {name!r}; give one of: {known}")
        for choice in (name, "tool_use" if with_tools else None, "default"):
            if choice is not None and choice in self.templates:
                return self.templates[choice]
        raise UsageError(f"{self.name} has several chat templates and none is named default; give one of: {known}")

    def _check_read(self, source: str, variables: Iterable[str], *, tools: bool, documents: bool) -> None:
        """Check that the template reads what it is given: the model would never see the rest.

        Raises:
            UsageError: it does not read the tools, the documents, or a variable other than ``enable_thinking``.
        """
        self._compile(source)
        read = _sandbox().names_read(source)
        for name, given in (("tools", tools), ("documents", documents)):
            if given and name not in read:
                others = [other for other, text in self.templates.items() if self._reads(text, name)]
                choice = f", choose the template {others[0]!r}" if others else ""
                raise UsageError(
                    f"{self.name}: its chat template{self._shown_name(source)} never mentions {name}, so the model "
                    f"would not see them; leave {name} out{choice}, or describe them in the system message"
                )
        for variable in variables:
            if variable not in read and variable != "enable_thinking":
                near = nearest(variable, read)
                advice = f"did you mean {near!r}?" if near else "leave it out"
                raise UsageError(
                    f"{self.name}: its chat template{self._shown_name(source)} does not read the variable "
                    f"{variable!r}; {advice}"
                )

    def _reads(self, source: str, name: str) -> bool:
        """Return True where a template is valid and reads a name."""
        try:
            self._compile(source)
        except ArtifactError:
            return False
        return name in _sandbox().names_read(source)

    def _shown_name(self, source: str) -> str:
        """Return `` 'rag'`` for the template of that name; nothing where there is only one."""
        if len(self.templates) == 1:
            return ""
        return next((f" {name!r}" for name, text in self.templates.items() if text == source), "")

    def _compile(self, source: str) -> None:
        """Compile a template.

        Raises:
            ArtifactError: it is not valid Jinja, or it is refused.
        """
        import jinja2

        from .sandbox.budget import TemplateLimitError

        try:
            _sandbox().compiled(source)
        except TemplateLimitError as error:
            raise self._refusal(str(error)) from None
        except jinja2.TemplateSyntaxError as error:
            raise ArtifactError(
                f"{self.name}: its chat template cannot be read: line {error.lineno}: {error.message}; "
                "fix the checkpoint's file and export the model again"
            ) from None
        except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
            raise self._refusal(f"it cannot be compiled ({_reason(error)})") from None

    def _run(self, source: str, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
        import jinja2

        from .sandbox.budget import TemplateLimitError

        self._compile(source)
        try:
            prompt: str = _sandbox().render(source, {**variables, "messages": messages})
            return prompt
        except (TemplateLimitError, jinja2.exceptions.SecurityError) as error:
            raise self._refusal(str(error)) from None

    def _refusal(self, reason: str) -> ArtifactError:
        return ArtifactError(
            f"{self.name}: its chat template is refused: {_short(reason)}; "
            "use the template that the checkpoint was published with"
        )

    def _find_failing_message(
        self, source: str, messages: list[dict[str, Any]], variables: Mapping[str, Any], reason: str
    ) -> int:
        """Return the index of the last message of the shortest prefix on which the template fails for ``reason``."""
        for count in range(1, min(len(messages), MAX_PREFIXES)):
            try:
                self._run(source, messages[:count], variables)
            except IntaglioError:
                break
            except Exception as error:
                if _reason(error) == reason:
                    return count - 1
        return len(messages) - 1


def read_chat_format(folder: Path) -> ChatFormat:
    """Read the chat templates and special tokens of an artifact or a checkpoint.

    Without a template, ``render`` raises ArtifactError.

    Raises:
        ArtifactError: a file cannot be read, or ``chat_template`` is neither a string nor a list of named strings.
    """
    try:
        config = read_object(folder / "tokenizer_config.json")
    except ValueError as error:
        raise ArtifactError(f"{error}; export the model again") from None
    # Files have priority over the entry, as in transformers: the entry is not read where there is one.
    templates = _template_files(folder) or _named_templates(
        config.get("chat_template"), folder / "tokenizer_config.json"
    )
    try:
        tokens = named_tokens(folder)
    except ValueError as error:
        raise ArtifactError(f"{error}; export the model again") from None
    return ChatFormat(str(folder), templates, tokens)


def _sandbox() -> ModuleType:
    """Import the sandbox, and jinja2, with the first conversation and not with the package."""
    from .sandbox import sandbox

    return sandbox


def _template_files(folder: Path) -> dict[str, str]:
    """Read ``chat_template.jinja`` as "default", and the files beside it that have names of their own."""
    paths = {"default": folder / "chat_template.jinja"}
    paths |= {path.stem: path for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))}
    texts = {name: _template_text(path) for name, path in paths.items()}
    return {name: text for name, text in texts.items() if text is not None}


def _template_text(path: Path) -> str | None:
    """Return the text of a template's file, with newlines alone between lines; None where there is none."""
    try:
        return read_regular(path, MAX_TEMPLATE_BYTES).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} cannot be read ({error}); export the model again") from None
    except ValueError as error:
        raise ArtifactError(f"{error}; export the model again") from None


def _named_templates(entry: Any, path: Path) -> dict[str, str]:
    named = {"default": entry} if isinstance(entry, str) else entry or {}
    pairs = list(named.items()) if isinstance(named, dict) else _name_and_template(named)
    if not all(isinstance(one, str) for pair in pairs for one in pair):
        raise ArtifactError(
            f"{path}: chat_template is neither a string nor a list of templates with names; "
            "fix the checkpoint's file and export the model again"
        )
    return dict(pairs)


def _name_and_template(entries: Any) -> list[tuple[Any, Any]]:
    """Return the pairs of a list of objects; a pair of None for whatever is none."""
    if not isinstance(entries, list):
        return [(None, None)]
    return [(one.get("name"), one.get("template")) if isinstance(one, dict) else (None, None) for one in entries]


def _reason(error: BaseException | None) -> str:
    return _short(str(error)) or type(error).__name__


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"
