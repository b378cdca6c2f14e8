"""``/v1/completions``: texts that the model continues, and the log-probabilities of their tokens."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...errors import IntaglioError
from ...runtime.generation.events import Waiting
from ...runtime.generation.score import Score
from ..engine.engine import Engine
from ..errors import refused
from ..http.bodies import read_body
from ..http.streams import event_stream, while_connected
from ..protocol.answers import new_id, now, usage
from ..protocol.completion_choices import Choice, Part, ReadPrompt, read_prompt, whole
from ..protocol.completions import CompletionBody, check, options
from ..protocol.prompts import as_prompts, check_length
from ..server import server_of


@dataclass
class Call:
    """A call that is ready to run, and the tokens that it has taken so far."""

    engine: Engine
    body: CompletionBody
    prompts: list[ReadPrompt]
    choices: list[Choice]
    requests: list[Waiting]
    id: str = field(default_factory=lambda: new_id("cmpl-"))
    created: int = field(default_factory=now)
    completion_tokens: int = 0
    cached_tokens: dict[int, int] = field(default_factory=dict)

    def answer(self, choices: list[Part], **more: Any) -> dict[str, Any]:
        """Return an answer, or a chunk of a stream."""
        named = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.engine.name}
        return {**named, "choices": choices, **more}

    def usage(self) -> dict[str, Any]:
        """Return the counts of tokens; a prompt counts once, however many continuations it has."""
        read = sum(len(prompt.token_ids) for prompt in self.prompts)
        return usage(read, self.completion_tokens, sum(self.cached_tokens.values()))


async def completions(request: Request) -> Response:
    """Continue texts."""
    server = server_of(request)
    body = await read_body(request, CompletionBody)
    check(body, server.settings.slots + server.settings.max_queue)
    engine = await server.models.engine(body.model)
    call = await asyncio.to_thread(_prepare, engine, body)
    if body.stream:
        return await event_stream(request, _chunks(call))
    return JSONResponse(await while_connected(request, _whole(call)))


def _prepare(engine: Engine, body: CompletionBody) -> Call:
    """Read the prompts and make the requests.

    Raises:
        ApiError: a prompt or an option cannot be used.
    """
    tokenizer, facts = engine.generator.tokenizer, engine.generator.manifest.model
    given = as_prompts(body.prompt)
    call = Call(engine, body, [], [], [])
    for number, one in enumerate(given):
        name = "the prompt" if len(given) == 1 else f"prompt {number}"
        try:
            prompt = read_prompt(one, tokenizer, facts, name)
        except IntaglioError as error:
            raise refused(error, "prompt") from None
        check_length(len(prompt.token_ids), body.new_tokens, engine.max_length, name, "max_tokens")
        call.prompts.append(prompt)
        for repetition in range(body.choices):
            index = len(call.choices)
            call.choices.append(Choice(index, prompt, tokenizer, echo=bool(body.echo), logprobs=body.logprobs))
            if body.new_tokens:
                try:
                    request = engine.prepare(prompt.token_ids, index=number, repetition=repetition, **options(body))
                except IntaglioError as error:
                    raise refused(error) from None
                call.requests.append(request)
    return call


async def _whole(call: Call) -> dict[str, Any]:
    parts: dict[int, list[Part]] = defaultdict(list)
    async with aclosing(_parts(call)) as stream:
        async for part in stream:
            parts[part["index"]].append(part)
    return call.answer([whole(parts[choice.index]) for choice in call.choices], usage=call.usage())


async def _chunks(call: Call) -> AsyncGenerator[dict[str, Any], None]:
    counted = call.body.stream_options is not None and call.body.stream_options.include_usage
    more = {"usage": None} if counted else {}
    async with aclosing(_parts(call)) as stream:
        async for part in stream:
            yield call.answer([part], **more)
    if counted:
        yield call.answer([], usage=call.usage())


async def _parts(call: Call) -> AsyncGenerator[Part, None]:
    """Yield the parts of all choices as they come: the prompts where they are part of the answer, then the events."""
    if call.body.echo:
        for number, prompt in enumerate(call.prompts):
            score = await _score(call, prompt) if call.body.scores_prompts else None
            first = number * call.body.choices
            for choice in call.choices[first : first + call.body.choices]:
                yield choice.prompt_part(score, last=not call.requests)
    if not call.requests:
        return
    async with aclosing(call.engine.run(call.requests)) as events:
        async for index, event in events:
            call.completion_tokens += len(event.token_ids)
            if index % call.body.choices == 0:
                call.cached_tokens[index] = event.cached_tokens
            yield call.choices[index].part(event)


async def _score(call: Call, prompt: ReadPrompt) -> Score | None:
    """Return the score of a prompt; None for one token, which has no token before it."""
    if len(prompt.token_ids) == 1:
        return None
    token_ids, logprobs = prompt.token_ids, call.body.logprobs
    return await call.engine.run_task(lambda generator: generator.score(token_ids, logprobs=logprobs))
