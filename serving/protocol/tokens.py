"""``/tokenize`` and ``/detokenize``, as vLLM has them: the bodies, and what they ask of a tokenizer."""

from typing import Annotated, Any

from pydantic import Field

from ...artifact import ModelFacts
from ...errors import UsageError
from ...files.chat.template import ChatFormat
from ...files.library_errors import library_errors
from ...runtime.chat.chat import RESERVED
from ...runtime.text.detokenize import decoding_refusal
from ...runtime.text.prompts import token_ids
from ...runtime.text.tokenizer import Tokenizer
from ..forms import Body, few
from .chat.messages import MOST_MESSAGES, Message, template_messages
from .chat.tools import MOST_TOOLS, Tool, calling


class TokenizeBody(Body):
    """The body of ``/tokenize``: a text, or a conversation, which the chat template makes a text of."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: Annotated[dict[str, Any], few(32)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None


class DetokenizeBody(Body):
    """The body of ``/detokenize``."""

    model: str | None = None
    tokens: list[int]


def text_of(body: TokenizeBody, chat_format: ChatFormat | None) -> tuple[str, bool]:
    """Return the text to tokenize, and True where the tokenizer adds its special tokens, as vLLM decides it.

    Args:
        chat_format: that of the model; None for a task without chat.

    Raises:
        ArtifactError, PromptError, UsageError: as ``ChatFormat.render``; or there is no text, or no chat template.
    """
    if (body.prompt is None) == (body.messages is None):
        raise UsageError("give either prompt or messages")
    if body.prompt is not None:
        return body.prompt, body.add_special_tokens is not False
    assert body.messages is not None  # one of the two is given
    if chat_format is None or not chat_format.templates:
        raise UsageError("the model has no chat template; give prompt instead of messages")
    if reserved := [name for name in body.chat_template_kwargs or {} if name in RESERVED]:
        raise UsageError(f"chat_template_kwargs: {reserved[0]!r} is set by the request itself; leave it out")
    text = chat_format.render(
        template_messages(body.messages),
        tools=calling(body.tools, None).tools or None,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        **(body.chat_template_kwargs or {}),
    )
    return text, body.add_special_tokens is True


def tokenized(tokenizer: Tokenizer, text: str, *, special: bool, strings: bool, longest: int) -> dict[str, Any]:
    """Return the answer of ``/tokenize``.

    Args:
        special: add the special tokens of the tokenizer's template.
        strings: name each token as the vocabulary does.
        longest: the most tokens of a request, for ``max_model_len``.
    """
    encoding = tokenizer.encode_with_offsets(text, add_special_tokens=special)
    answer = {"count": len(encoding.ids), "max_model_len": longest, "tokens": list(encoding.ids)}
    return {**answer, "token_strs": list(encoding.tokens) if strings else None}


def detokenized(tokenizer: Tokenizer, tokens: list[int], facts: ModelFacts) -> str:
    """Return the text of token ids, with special tokens.

    Raises:
        PromptError: an id is out of range.
    """
    if not tokens:
        return ""
    ids = token_ids(tokens, tokenizer, facts, "tokens").tolist()
    with library_errors(decoding_refusal):
        return str(tokenizer.backend.decode(ids, skip_special_tokens=False))
