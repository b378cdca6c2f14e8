"""A stand-in for lm-evaluation-harness: the base class that its adapters are called through, without its packages.

``TemplateLM.loglikelihood`` and ``_encode_pair`` do as ``lm_eval.api.model`` of 0.4.13.
"""

from types import ModuleType, SimpleNamespace
from typing import Any

REGISTERED: dict[str, type] = {}


class TemplateLM:
    """The methods of the harness's base class that an adapter is called through."""

    prefix_token_id: int

    def __init__(self) -> None:
        self.cache_hook = SimpleNamespace(add_partial=lambda *_: None)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
        raise NotImplementedError

    def _loglikelihood_tokens(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        raise NotImplementedError

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        given = []
        for context, continuation in (request.args for request in requests):
            if context == "":
                tokens = self.tok_encode(continuation, add_special_tokens=False)
                prefix = self.prefix_token_id
                before, after = (tokens[:1], tokens[1:]) if tokens[0] == prefix else ([prefix], tokens)
            else:
                before, after = self._encode_pair(context, continuation)
            given.append(((context, continuation), before, after))
        return self._loglikelihood_tokens(given, disable_tqdm=disable_tqdm)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        whole, before = self.tok_encode(context + continuation), self.tok_encode(context)
        return before, whole[len(before) :]


def register_model(name: str) -> Any:
    return lambda kind: REGISTERED.setdefault(name, kind)


def modules() -> dict[str, ModuleType]:
    """Return the entries of ``sys.modules`` by which ``import lm_eval`` finds this stand-in."""
    found = {name: ModuleType(name) for name in ("lm_eval", "lm_eval.api", "lm_eval.models")}
    for name, content in (("model", {"TemplateLM": TemplateLM}), ("registry", {"register_model": register_model})):
        found[f"lm_eval.api.{name}"] = module = ModuleType(f"lm_eval.api.{name}")
        vars(module).update(content)
    return found
