"""The Jinja environment of chat templates: transformers' rendering, with bounded time and memory.

It is set up as in ``transformers.utils.chat_template_utils`` 5.23: jinja2's immutable sandbox with trimmed blocks,
``break`` and ``continue``, ``{% generation %}``, ``raise_exception``, ``strftime_now``, and a ``tojson`` without
escaping. ``allowances`` lists what a template may call; ``budget`` counts what it spends.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from types import BuiltinMethodType, MethodType
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace, _PassArg

from . import allowances, metering
from .budget import LONGEST_NUMBER, Budget, TemplateLimitError, current

LONGEST_TEMPLATE = 200_000  # characters
LONGEST_RANGE = 100_000  # items


def render(source: str, variables: Mapping[str, Any], budget: Budget | None = None) -> str:
    """Render a template within ``budget``, which grows with the size of the variables.

    Raises:
        TemplateLimitError: the template exceeds the budget.
        jinja2.TemplateError: the template raises an error; other exceptions come from Python operations in it.
    """
    budget = budget or Budget()
    budget.grow(dict(variables))
    token = current.set(budget)
    try:
        chunks: list[str] = []
        for chunk in compiled(source).generate(variables):
            budget.spend(1, len(chunk))
            chunks.append(chunk)
        return "".join(chunks)
    except (RecursionError, MemoryError):
        raise TemplateLimitError("it is nested too deeply") from None
    finally:
        current.reset(token)


@lru_cache(maxsize=16)
def compiled(source: str) -> jinja2.Template:
    """Parse, meter and compile a template; the result is cached.

    Raises:
        TemplateLimitError: the template is too long.
        jinja2.TemplateSyntaxError: it is not a Jinja template, or it loads other templates.
    """
    if len(source) > LONGEST_TEMPLATE:
        raise TemplateLimitError(f"it has {len(source):,} characters, and {LONGEST_TEMPLATE:,} are allowed")
    metered = cast(nodes.Template, metering.Metering().visit(ENVIRONMENT.parse(source)))
    metered.set_environment(ENVIRONMENT)
    return ENVIRONMENT.from_string(metered)


@lru_cache(maxsize=16)
def names_read(source: str) -> frozenset[str]:
    """Return the names that a template reads: variables, its own ones included, macros and functions.

    Raises:
        jinja2.TemplateSyntaxError: it is not a Jinja template.
    """
    return frozenset(name.name for name in ENVIRONMENT.parse(source).find_all(nodes.Name) if name.ctx == "load")


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """A Jinja sandbox that charges operators and calls to the current budget."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def concat(self, chunks: Any) -> str:
        chunks = list(chunks)
        current.get().spend(len(chunks), sum(map(len, chunks)))
        return "".join(chunks)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = current.get()
        if operator == "%" and isinstance(left, str):
            allowances.formatting(budget, left, right)
        elif operator == "*" and not (isinstance(left, int | float) and isinstance(right, int | float)):
            times = next((n for n in (left, right) if isinstance(n, int)), 0)
            _repeat(budget, right if isinstance(left, int) else left, max(0, times))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > LONGEST_NUMBER:
                raise TemplateLimitError(f"it computes a number of more than {LONGEST_NUMBER:,} bits")
        else:
            budget.charge((left, right))
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int):
            budget.charge(result)
        return result

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise _not_allowed(f"{type(obj).__name__}.{attribute}")

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = current.get()
        named = {name: value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")}
        if isinstance(obj, BuiltinMethodType) or hasattr(obj, "__wrapped__"):
            # The sandbox wraps str.format.
            method = getattr(obj, "__wrapped__", obj)
            subject, name = getattr(method, "__self__", None), method.__name__
            rules = next((rules for kind, rules in allowances.METHODS.items() if isinstance(subject, kind)), {})
            if name not in rules:
                raise _not_allowed(f"{type(subject).__name__}.{name}")
            if name == "join":
                args = tuple(list(a) if not isinstance(a, str) else a for a in args)
            budget.charge((args, named))
            if name == "join" and args:
                rules[name](budget, args[0], subject)
            else:
                budget.charge(subject if isinstance(subject, str) else None)
                rules[name](budget, subject, *args, **named)
            result = super().call(context, obj, *args, **kwargs)
            budget.charge(result if name not in ("get", "copy") else None)
            return result
        owner = obj.__self__ if isinstance(obj, MethodType) else obj
        if not (isinstance(owner, CALLABLE) or owner in GLOBALS):
            raise _not_allowed(f"calling {type(owner).__name__}")
        budget.charge((args, named))
        result = super().call(context, obj, *args, **kwargs)
        if isinstance(result, dict):
            budget.charge(result)
        return result


class Generation(Extension):
    """``{% generation %}`` marks the assistant's text for training; rendering ignores it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Macro) -> str:
        return caller()


class SafeNamespace(Namespace):
    """``namespace`` without attributes that start with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # without ``self``: ``namespace(self=...)`` is valid
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


class DictFunction:
    """``dict`` without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Return JSON as transformers does: without escapes for HTML or ASCII."""
    budget = current.get()
    width = 0 if indent is None else len(indent) if isinstance(indent, str) else int(indent)
    if width > 64 or any(len(separator) > 64 for separator in separators or ()):
        raise TemplateLimitError("it asks for an indent or separator of more than 64 characters")
    budget.charge(value)
    result = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    budget.charge(result)
    return result


def raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def strftime_now(format: str) -> str:
    if len(format) > 256:
        raise TemplateLimitError("it asks for a date format of more than 256 characters")
    return datetime.now().strftime(format)


def bounded_range(*arguments: int) -> range:
    found = range(*arguments)
    if len(found) > LONGEST_RANGE:
        raise TemplateLimitError(f"it asks for a range of more than {LONGEST_RANGE:,}")
    return found


def _not_allowed(what: str) -> SecurityError:
    return SecurityError(f"{what} is not allowed in chat templates")


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no attributes that start with an underscore: {name!r}")


def _repeat(budget: Budget, value: Any, times: int) -> None:
    """Charge a value ``times`` times, before it is repeated."""
    if isinstance(value, str):
        budget.spend(1, len(value) * times)
        return
    steps, characters = budget.steps, budget.characters
    budget.charge(value)
    budget.spend((steps - budget.steps) * times, (characters - budget.characters) * times)


def _metered_filter(name: str, function: Callable[..., Any], rule: allowances.Rule) -> Callable[..., Any]:
    first = 0 if _PassArg.from_obj(function) is None else 1  # jinja passes its context before the value

    @wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        budget = current.get()
        value, rest = args[first], args[first + 1 :]
        if name in allowances.EAGER and isinstance(value, Iterator):
            value = list(value)
        budget.charge((value, rest, kwargs))
        rule(budget, value, *rest, **kwargs)
        result = function(*args[:first], value, *rest, **kwargs)
        if isinstance(result, Iterator):
            return _charge_items(result)
        budget.charge(result if name not in ("first", "last", "d", "default", "attr") else None)
        return result

    return metered


def _charge_items(items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        current.get().spend(1)
        yield item


def _metered_test(function: Any) -> Callable[..., Any]:
    @wraps(function)
    def metered(*args: Any) -> Any:
        current.get().charge(args)
        return function(*args)

    return metered


@jinja2.pass_context
def _output(_context: Context, value: Any) -> Any:
    """Charge the value of each ``{{ }}`` before it is converted to text.

    The context argument keeps jinja from evaluating constants while it compiles.
    """
    current.get().charge(value)
    return value


CALLABLE = (Macro, LoopContext, BlockReference, Cycler, Joiner, Undefined, Generation)


def _environment() -> ChatEnvironment:
    environment = ChatEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, loopcontrols],
        finalize=_output,
        optimized=False,
        cache_size=0,
    )
    known = environment.filters
    environment.filters = {
        name: _metered_filter(name, known[name], rule) for name, rule in allowances.FILTERS.items()
    } | {"tojson": tojson, **metering.FILTERS}
    environment.tests = {
        name: _metered_test(test) if name in allowances.COMPARING else test for name, test in environment.tests.items()
    }
    environment.globals = {
        "range": bounded_range,
        "dict": DictFunction(),
        "cycler": Cycler,
        "joiner": Joiner,
        "namespace": SafeNamespace,
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
    }
    return environment


ENVIRONMENT = _environment()
GLOBALS = tuple(ENVIRONMENT.globals.values())
