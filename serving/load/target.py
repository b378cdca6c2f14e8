"""A server with OpenAI's interface, as the load generator sees it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from ...errors import UsageError
from .prompts import Messages, RandomPrompts
from .sample import Sample

FIT = (16, 80)
"""Words of the two prompts from which the tokens of a word are reckoned."""

LENGTH_RULES: tuple[dict[str, Any], ...] = ({"ignore_eos": True}, {"min_tokens": 0}, {})
"""What makes an answer as long as it may be, on the servers that have it; ``min_tokens`` is set to that length."""


@dataclass
class Target:
    """A server and the parameters of every request to it.

    Attributes:
        url: of the server, without ``/v1``.
        chat: ``/v1/chat/completions``; else ``/v1/completions``, with the texts of the messages as the prompt.
        body: the parameters that all requests have.
        overhead, per_word: tokens of a prompt beside its words, and of one word; found by ``prepare``.
    """

    http: httpx.AsyncClient
    url: str
    model: str
    new_tokens: int
    timeout: float
    chat: bool = True
    body: dict[str, Any] = field(default_factory=dict)
    overhead: float = 0.0
    per_word: float = 1.0

    @property
    def address(self) -> str:
        """Where requests go."""
        return f"{self.url}/v1/chat/completions" if self.chat else f"{self.url}/v1/completions"

    async def prepare(self) -> None:
        """Find out how the server is told not to stop early, and how many tokens a word has.

        Raises:
            UsageError: it does not answer a first request.
        """
        counts = []
        for words in FIT:
            usage = (await self._try(RandomPrompts(words).messages(0))).get("usage") or {}
            counts.append(usage.get("prompt_tokens") or words)
        self.per_word = max((counts[1] - counts[0]) / (FIT[1] - FIT[0]), 0.1)
        self.overhead = counts[0] - self.per_word * FIT[0]

    async def _try(self, messages: Messages) -> dict[str, Any]:
        """Send a request for one token, with the first rule on lengths that the server accepts."""
        rules = (self.body,) if self.body else LENGTH_RULES
        reason = ""
        for rule in rules:
            body = {**self._request(messages), **rule, "max_tokens": 1, "stream": False}
            body.pop("stream_options")
            if "min_tokens" in rule:
                body["min_tokens"] = 1
            try:
                answer = await self.http.post(self.address, json=body, timeout=self.timeout)
            except httpx.HTTPError as error:
                raise UsageError(f"{self.url} does not answer: {describe(error)}; is the server running?") from None
            if answer.status_code == 200:
                self.body = {name: self.new_tokens if name == "min_tokens" else value for name, value in rule.items()}
                return dict(answer.json())
            reason = f"{answer.status_code} to a first request: {message_of(answer.text)}"
        raise UsageError(f"{self.url} answers {reason}; give --model and --api-key as the server needs them")

    def words(self, tokens: int, *, whole: bool = True) -> int:
        """Return how many words have about so many tokens; ``whole``: with what the chat template adds."""
        return max(1, round((tokens - (self.overhead if whole else 0)) / self.per_word))

    async def send(self, messages: Messages, sample: Sample) -> None:
        """Send a request and fill in its sample, also where it fails."""
        loop = asyncio.get_running_loop()
        sample.sent = loop.time()
        try:
            async with (
                asyncio.timeout(self.timeout),
                self.http.stream("POST", self.address, json=self._request(messages)) as answer,
            ):
                if answer.status_code != 200:
                    sample.error = str(answer.status_code)
                    sample.detail = message_of((await answer.aread()).decode(errors="replace"))
                    return
                sample.error = "incomplete"
                async for data in events(answer.aiter_bytes()):
                    if data == b"[DONE]":
                        if sample.error == "incomplete":
                            sample.error = None
                        break
                    read_chunk(data, sample, loop.time())
        except TimeoutError:
            sample.error = "timeout"
        except httpx.HTTPError as error:
            sample.error, sample.detail = "connection", describe(error)
        except ValueError as error:
            sample.error, sample.detail = "no JSON", str(error)
        finally:
            sample.ended = loop.time()
            sample.output_tokens = sample.output_tokens or len(sample.chunks)  # where the server tells no usage

    def _request(self, messages: Messages) -> dict[str, Any]:
        return {
            "model": self.model,
            **({"messages": messages} if self.chat else {"prompt": text_of(messages)}),
            "max_tokens": self.new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.body,
        }


async def find_model(http: httpx.AsyncClient, url: str) -> str:
    """Return the name of the server's only model.

    Raises:
        UsageError: it does not answer, has several, or does not say.
    """
    try:
        answer = await http.get(f"{url}/v1/models")
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise UsageError(f"{url} does not answer: {describe(error)}; is the server running?") from None
    try:
        names = [model["id"] for model in answer.raise_for_status().json()["data"]]
    except (httpx.HTTPStatusError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{url}/v1/models does not list the models: {describe(error)}; give --model") from None
    if len(names) != 1:
        raise UsageError(f"{url} has the models {', '.join(names) or '(none)'}; give one of them with --model")
    return str(names[0])


async def events(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the data of server-sent events; their lines end at line feeds alone."""
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


def read_chunk(data: bytes, sample: Sample, now: float) -> None:
    """Note what a chunk says: a part of the answer, the usage, or an error."""
    chunk = json.loads(data)
    if error := chunk.get("error"):
        sample.error, sample.detail = "stream", str(error.get("message") if isinstance(error, dict) else error)
        return
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        if choice.get("text") or delta.get("content") or delta.get("reasoning_content") or delta.get("tool_calls"):
            sample.chunks.append(now)
        sample.finish_reason = choice.get("finish_reason") or sample.finish_reason
    if usage := chunk.get("usage"):
        sample.prompt_tokens = usage.get("prompt_tokens") or 0
        sample.output_tokens = usage.get("completion_tokens") or 0
        sample.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def text_of(messages: Messages) -> str:
    """Return the texts of messages, one after the other."""
    return "\n\n".join(str(message["content"]) for message in messages)


def message_of(text: str) -> str:
    """Return the message of an error's body."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[:200]


def describe(error: Exception) -> str:
    """Return an error in words; some of httpx have none but their names."""
    return str(error) or type(error).__name__
