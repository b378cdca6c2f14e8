"""The features of the server that the clients are tried with: the rows of the table in docs/clients.md."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .facts import Facts

MODULES = ("chat", "tools", "structured", "texts", "responses", "errors")
"""The modules of features, in the order of the table."""


@dataclass(frozen=True)
class Case:
    """A client, a model of the server, and what the library says of that model.

    Attributes:
        client: an ``openai.OpenAI``, or what behaves as one.
        model: the name of a text-generation model.
    """

    client: Any
    model: str
    facts: Facts


Run = Callable[[Case], str | None]
"""Tries a feature and checks the answers; returns what the table says, or None for "yes"."""


@dataclass(frozen=True)
class Feature:
    """A feature; programs in other languages know it by its ``key``."""

    key: str
    group: str
    title: str
    run: Run


FEATURES: dict[str, Feature] = {}


def feature(group: str, title: str) -> Callable[[Run], Run]:
    """Register a function as the trial of a feature; its name is the key."""

    def register(run: Run) -> Run:
        FEATURES[run.__name__] = Feature(run.__name__, group, title, run)
        return run

    return register


def features() -> dict[str, Feature]:
    """Return all features by key."""
    for name in MODULES:
        importlib.import_module(f"{__package__}.{name}_features")
    return FEATURES


def outcome(feature: Feature, case: Case) -> str:
    """Try a feature; return what the table says of it."""
    return feature.run(case) or "yes"
