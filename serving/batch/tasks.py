"""What a batch does with rows: callable classes for ``map_batches`` of Ray Data, and for lists of rows without Ray.

Each loads an artifact when it is made, and returns the rows with the columns of its results and ``error``: the message
of a row that cannot be used, whose results are None. The other rows do not suffer.
"""

import json
from collections.abc import Sequence
from typing import Any, cast

from ...errors import InputError, PromptError
from ...runtime.chat.chat import ChatOptions, ChatTurn, prepare_turn
from ...runtime.generation.generator import TextGenerator
from ...runtime.sequence.options import Options
from ...runtime.sequence.sequence import Generation
from ...runtime.tasks.answer import QuestionAnswerer
from ...runtime.tasks.classify import SequenceClassifier
from ...runtime.tasks.embed import Embedder
from ...runtime.tasks.tag import TokenClassifier
from .rows import Row, RowTask, each, plain


class Generate(RowTask[TextGenerator]):
    """Continue texts: ``prompt``, also token ids → ``generated_text``, ``finish_reason``.

    Options as ``TextGenerator.generate``.
    """

    task = "text-generation"
    inputs = ("prompt",)
    results = ("generated_text", "finish_reason")
    kinds = (str, list)

    def run(self, inputs: Sequence[Row]) -> list[Row | InputError]:
        found = self.model.generate([row["prompt"] for row in inputs], errors="return", **self.options)
        return [one if isinstance(one, PromptError) else _continuation(one) for one in found]


def _continuation(generation: Generation) -> Row:
    return {"generated_text": generation.text, "finish_reason": generation.finish_reason}


class Chat(RowTask[TextGenerator]):
    """Answer conversations: ``messages`` → ``answer``, ``thought``, ``tool_calls``, ``finish_reason``.

    ``messages`` is a list or its JSON, and ``tool_calls`` JSON, a list of {"name", "arguments"}. Options as
    ``TextGenerator.chat``, and ``batch_size``.
    """

    task = "text-generation"
    inputs = ("messages",)
    results = ("answer", "thought", "tool_calls", "finish_reason")
    kinds = (str, list)

    def run(self, inputs: Sequence[Row]) -> list[Row | InputError]:
        turns = [self._turn(row["messages"]) for row in inputs]
        ready = [turn for turn in turns if isinstance(turn, ChatTurn)]
        options: Options = ready[0].options if ready else {}
        size = self.options.get("batch_size", 8)
        made = self.model.generate([turn.tokens for turn in ready], batch_size=size, errors="return", **options)
        found = iter(made)
        return [_reply(turn, next(found)) if isinstance(turn, ChatTurn) else turn for turn in turns]

    def _turn(self, messages: Any) -> ChatTurn | InputError:
        options = cast(ChatOptions, {name: value for name, value in self.options.items() if name != "batch_size"})
        try:
            given = json.loads(messages) if isinstance(messages, str) else messages
            length = self.model.manifest.model.context_length
            return prepare_turn(self.model.chat_format, self.model.tokenizer, given, options, length)
        except json.JSONDecodeError as error:
            return PromptError(f"messages is not JSON: {error}")
        except PromptError as error:
            return error


def _reply(turn: ChatTurn, generation: Generation | PromptError) -> Row | InputError:
    if isinstance(generation, PromptError):
        return generation
    reply = turn.parser.reply([*turn.parser.push(generation.text), *turn.parser.flush()], generation)
    calls = [{"name": call.name, "arguments": call.arguments} for call in reply.tool_calls]
    return {
        "answer": reply.text,
        "thought": reply.thought,
        "tool_calls": json.dumps(calls, ensure_ascii=False),
        "finish_reason": generation.finish_reason,
    }


class Classify(RowTask[SequenceClassifier]):
    """Label texts: ``text`` → ``label``, ``score``; options as ``SequenceClassifier``."""

    task = "text-classification"
    inputs = ("text",)
    results = ("label", "score")

    def run(self, inputs: Sequence[Row]) -> list[Row | InputError]:
        def classified(rows: Sequence[Row]) -> list[Row]:
            found = self.model([row["text"] for row in rows], **self.options)
            return [{"label": one.label, "score": float(one.score)} for one in found]

        return each(classified, inputs)


class Embed(RowTask[Embedder]):
    """Turn texts into vectors: ``text`` → ``embedding``; options as ``Embedder``."""

    task = "feature-extraction"
    inputs = ("text",)
    results = ("embedding",)

    def run(self, inputs: Sequence[Row]) -> list[Row | InputError]:
        def embedded(rows: Sequence[Row]) -> list[Row]:
            vectors = self.model([row["text"] for row in rows], **self.options)
            return [{"embedding": vector.tolist()} for vector in vectors]

        return each(embedded, inputs)


class Tag(RowTask[TokenClassifier]):
    """Label tokens or entities: ``text`` → ``tags``, lists of {label, score, text, start, end}.

    Options as ``TokenClassifier``.
    """

    task = "token-classification"
    inputs = ("text",)
    results = ("tags",)

    def run(self, inputs: Sequence[Row]) -> list[Row | InputError]:
        def tagged(rows: Sequence[Row]) -> list[Row]:
            found = self.model([row["text"] for row in rows], **self.options)
            return [{"tags": [_plain(tag) for tag in tags]} for tags in found]

        return each(tagged, inputs)


class Answer(RowTask[QuestionAnswerer]):
    """Find answers in texts: ``question``, ``context`` → ``answer``, ``score``, ``start``, ``end``.

    Options as ``QuestionAnswerer``.
    """

    task = "question-answering"
    inputs = ("question", "context")
    results = ("answer", "score", "start", "end")

    def run(self, inputs: Sequence[Row]) -> list[Row | InputError]:
        def answered(rows: Sequence[Row]) -> list[Row]:
            found = [self.model(row["question"], row["context"], **self.options) for row in rows]
            return [_plain(best[0], text="answer") if best else dict.fromkeys(self.results) for best in found]

        return [result for row in inputs for result in each(answered, [row])]


def _plain(found: Any, **renamed: str) -> Row:
    """Return a result's fields as a row."""
    fields: dict[str, Any] = vars(found)
    return {renamed.get(name, name): plain(value) for name, value in fields.items()}
