"""Artifacts as a model of lm-evaluation-harness, under the name ``intaglio``.

    python -m intaglio.runtime.lm_eval run --model intaglio --model_args pretrained=out --tasks arc_easy

runs the harness's own command with this model registered; in Python, importing this module registers it. Contexts,
continuations and windows are truncated and joined as in ``lm_eval.models.huggingface``, so both give the same figures
for the same model.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from logging import getLogger
from pathlib import Path
from typing import Any

from ..artifact import Precision
from ..errors import ArtifactError, DependencyError, PromptError, UnsupportedError
from ..files.chat.template import read_chat_format
from ..files.generation_settings import SETTINGS
from .folder import open_folder
from .generation.generator import TextGenerator
from .load import load
from .sequence.options import Options

try:
    import lm_eval.models  # noqa: F401  # pyright: ignore[reportMissingImports]  # otherwise the harness registers no other model
    from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
    from tqdm import tqdm
except ImportError as error:
    raise DependencyError(
        f"the adapter needs the package lm-eval, which cannot be imported ({error}); pip install 'intaglio[eval]'"
    ) from None

MOST_NEW_TOKENS = 256  # the harness's default where a task has no number
OPTIONS = (Options.__annotations__.keys() & SETTINGS.keys()) - {"max_new_tokens", "temperature"}
"""The options that have the same name in the harness's tasks, which are transformers'."""

Answer = tuple[float, bool]
"""The log-probability of a continuation, and True where greedy generation would give it."""


@register_model("intaglio")
class ArtifactLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """A text-generation artifact for the harness.

    Args:
        pretrained: the artifact's folder or hub id.
        max_length: the longest text in tokens; None for the model's context.
        precision: which artifact, where there are several; None for the default.
        batch_size: how many texts are generated together; the results do not depend on it.
        device: ``cpu``, or ``cuda``, the harness's own default; the CPU is used where CUDA is not available.

    Raises:
        ArtifactError: the artifact is for another task, or has no tokenizer or no end token.
    """

    def __init__(
        self,
        pretrained: str,
        max_length: int | None = None,
        batch_size: int | str | None = None,
        device: str | None = None,
        threads: int | None = None,
        revision: str | None = None,
        precision: Precision | None = None,
        **unused: Any,  # settings of the harness, such as max_batch_size
    ) -> None:
        super().__init__()
        folder, manifest = open_folder(pretrained, revision, precision)
        if manifest.task != "text-generation":
            raise ArtifactError(f"{folder} is a {manifest.task} artifact; the harness runs text-generation artifacts")
        model = _load(folder, device, threads, precision)
        if model.tokenizer is None:
            raise ArtifactError(f"{folder} has no tokenizer.json, and the harness gives text; export the model again")
        ends = [model.tokenizer.eos_token_id, *model.defaults.end_tokens]
        end = next((token for token in ends if token is not None), None)
        if end is None:
            raise ArtifactError(f"{folder} names no end token, with which the harness begins texts; add eos_token")
        self.model = model
        self.text_tokenizer = model.tokenizer
        self.max_length = max_length or manifest.model.context_length
        self.batch_size = int(str(batch_size)) if str(batch_size).isdigit() else 8  # it may also say "auto"
        self._end = end
        self._chat = read_chat_format(folder)
        self._begin_text = self._chat.special_tokens.get("bos_token")
        self._begin = model.tokenizer.backend.token_to_id(self._begin_text) if self._begin_text else None
        self._name = f"{manifest.source.id}@{manifest.source.digest[:12]}"

    @property
    def eot_token_id(self) -> int:
        return self._end

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without a context."""
        return self._end if self._begin is None else self._begin

    @property
    def tokenizer_name(self) -> str:
        return self._name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the text of the template, for the harness's report."""
        if chat_template is False or not self._chat.templates:
            return None
        name = chat_template if isinstance(chat_template, str) else "default"
        return self._chat.templates.get(name)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation as a prompt; without a generation prompt its last message is continued."""
        return self._chat.render(
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **unused: Any) -> list[int]:
        """Return token ids, with the tokenizer's special tokens unless the text begins with one."""
        if add_special_tokens is None:
            add_special_tokens = not (self._begin_text and string.startswith(self._begin_text))
        found = self.text_tokenizer.encode_with_offsets(string, add_special_tokens=add_special_tokens)
        return list(found.ids)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **unused: Any,
    ) -> list[Answer]:
        """Answer each (texts, context ids, continuation ids); a context that is too long is truncated on the left."""
        answers: list[Answer] = []
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Running loglikelihood requests") as bar:
            # The choices of a question are adjacent and share its context, which is then read once.
            for _, group in groupby(requests, key=lambda request: request[1]):
                members = list(group)
                pairs = [self._cut(context, continuation) for _, context, continuation in members]
                scores = self.model.score([one for _, one in pairs], context=[context for context, _ in pairs])
                for (texts, _, _), score in zip(members, scores, strict=True):
                    answers.append((score.total, score.is_greedy))
                    if texts is not None:
                        self.cache_hook.add_partial("loglikelihood", texts, answers[-1])
                bar.update(len(members))
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each whole text, in windows of ``max_length`` where it is longer."""
        totals = []
        for (text,) in tqdm([request.args for request in requests], disable=disable_tqdm):
            tokens = self.tok_encode(text)
            score = self.model.score(
                tokens, context=[self.prefix_token_id], window=self.max_length, stride=self.max_length
            )
            totals.append(score.total)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), score.total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue contexts; one that leaves no room for the continuation is truncated on the left."""
        texts: list[str] = []
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Running generate_until requests") as bar:
            for settings, alike in groupby((request.args for request in requests), key=lambda args: args[1]):
                for members in _batches(alike, self.batch_size):
                    options = generation_options(settings)
                    room = self.max_length - options["max_new_tokens"]
                    if room < 1:
                        raise PromptError(
                            f"the task asks for {options['max_new_tokens']:,} new tokens, the model's length is "
                            f"{self.max_length:,}; set max_gen_toks in --gen_kwargs"
                        )
                    prompts = [self.tok_encode(context)[-room:] for context, _ in members]
                    done = self.model.generate(prompts, batch_size=self.batch_size, **options)
                    for args, generation in zip(members, done, strict=True):
                        texts.append(generation.text)
                        self.cache_hook.add_partial("generate_until", args, generation.text)
                    bar.update(len(members))
        return texts

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        if len(continuation) > self.max_length:
            raise PromptError(
                f"a continuation has {len(continuation):,} tokens, the model's length is {self.max_length:,}; "
                "score shorter ones"
            )
        return context[-(self.max_length + 1 - len(continuation)) :], continuation


def generation_options(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a task's ``generation_kwargs`` as arguments of ``TextGenerator.generate``.

    Raises:
        UnsupportedError: intaglio does not have a setting.
    """
    left = dict(settings)
    until = left.pop("until", None) or []
    options: dict[str, Any] = {"stop": [until] if isinstance(until, str) else [one for one in until if one]}
    counts = [left.pop(name, None) for name in ("max_gen_toks", "max_new_tokens", "max_tokens")]
    options["max_new_tokens"] = next((int(count) for count in counts if count is not None), MOST_NEW_TOKENS)
    temperature = left.pop("temperature", None)
    samples = left.pop("do_sample", bool(temperature))
    options["temperature"] = (1.0 if temperature is None else float(temperature)) if samples else 0.0
    for name in sorted(OPTIONS):
        if (value := left.pop(name, None)) is not None:
            options[name] = value
    if (seed := left.pop("seed", None)) is not None:
        options["seed"] = int(seed)
    if left:
        raise UnsupportedError(f"generation_kwargs: intaglio has no {sorted(left)[0]!r}; leave it out of --gen_kwargs")
    return options


def _load(folder: Path, device: str | None, threads: int | None, precision: Precision | None) -> TextGenerator:
    if device and device.startswith("cuda"):
        try:
            return load(folder, task="text-generation", device="cuda", threads=threads, precision=precision)
        except (DependencyError, UnsupportedError) as error:
            getLogger(__name__).info("on the CPU, since: %s", error)
    return load(folder, task="text-generation", device="cpu", threads=threads, precision=precision)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    held: list[Any] = []
    for item in items:
        held.append(item)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

    cli_evaluate()
