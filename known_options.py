"""The check that the options of a call exist; the error names the nearest one that does.

Python checks the names of keyword arguments itself, but its TypeError names neither the nearest nor, where options pass
through ``**options``, the function that the caller knows.
"""

import inspect
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar, cast, get_args, is_typeddict

from .errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class")


def refuses_unknown_options(function: Function) -> Function:
    """Decorate a function so that a call with an option that it does not have raises UsageError.

    Its options are its parameters and, for ``**options: Unpack[T]``, the keys of the typed dictionary ``T``. Where it
    has another ``**`` parameter, every name is taken.
    """
    known = option_names(function)
    name = _shown_name(function)

    @wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        if known is not None:
            check_options(name, options, known)
        return function(*arguments, **options)

    return cast(Function, checked)


def with_known_options(cls: type[Class]) -> type[Class]:
    """Decorate a class so that its constructor refuses unknown options."""
    cls.__init__ = refuses_unknown_options(cls.__init__)  # type: ignore[method-assign]
    return cls


def option_names(function: Callable[..., Any]) -> tuple[str, ...] | None:
    """Return the names of the options that a function takes by keyword; None where it takes any."""
    names: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            unpacked = next(iter(get_args(parameter.annotation)), None)
            if not is_typeddict(unpacked):
                return None
            names += unpacked.__annotations__
        elif parameter.kind is not parameter.POSITIONAL_ONLY and parameter.kind is not parameter.VAR_POSITIONAL:
            names.append(parameter.name)
    return tuple(name for name in names if name != "self")


def check_options(name: str, given: Iterable[str], known: Collection[str]) -> None:
    """Check that every option that is given is known.

    Args:
        name: what has the options, in messages.

    Raises:
        UsageError: one is unknown; the message names the nearest, or all of them where none is near.
    """
    for option in given:
        if option not in known:
            near = nearest(option, known)
            others = f"its options are: {', '.join(known)}" if known else "it takes none"
            advice = f"did you mean {near!r}?" if near else others
            raise UsageError(f"{name} has no option {option!r}; {advice}")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like ``word``; None where none is."""
    return next(iter(get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


def _shown_name(function: Callable[..., Any]) -> str:
    """Return ``generate`` for a method, and the class's name for its constructor and its call."""
    owner, _, name = function.__qualname__.rpartition(".")
    return owner.rpartition(".")[2] if name in ("__init__", "__call__") else name
