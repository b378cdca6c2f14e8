"""The environment that chat templates run in: transformers' rendering, within a budget of time and memory.

As ``transformers.utils.chat_template_utils`` of version 5.23 sets it up: jinja2's immutable sandbox with trimmed
blocks, ``break`` and ``continue``, ``{% generation %}``, ``raise_exception``, ``strftime_now``, and a ``tojson`` that
escapes nothing. What a template may call is listed in ``allowances``; what it spends is counted in ``budget``.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache, wraps
from types import BuiltinMethodType, MethodType
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace, _PassArg

from . import allowances, metering
from .budget import LONGEST_NUMBER, Budget, TemplateLimitError, current

LONGEST_TEMPLATE = 200_000
LONGEST_RANGE = 100_000


def render(source: str, variables: Mapping[str, Any], budget: Budget | None = None) -> str:
    """The template's text, for at most ``budget`` and what the variables' own size adds to it.

    Raises:
        TemplateLimitError: more time or memory than a chat template may have.
        jinja2.TemplateError, and whatever else Python raises for what the template does with its variables.
    """
    budget = budget or Budget()
    budget.grow(dict(variables))
    token = current.set(budget)
    try:
        pieces: list[str] = []
        for piece in compiled(source).generate(variables):
            budget.spend(1, len(piece))
            pieces.append(piece)
        return "".join(pieces)
    except (RecursionError, MemoryError):
        raise TemplateLimitError("it nests too deeply") from None
    finally:
        current.reset(token)


@lru_cache(maxsize=16)
def compiled(source: str) -> jinja2.Template:
    """The template, parsed and translated once.

    Raises:
        jinja2.TemplateSyntaxError: it is none.
    """
    if len(source) > LONGEST_TEMPLATE:
        raise TemplateLimitError(f"it has {len(source):,} characters, and {LONGEST_TEMPLATE:,} are allowed")
    return ENVIRONMENT.from_string(source)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, in which everything is charged."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def _generate(self, source: nodes.Template, *arguments: Any, **named: Any) -> str:
        metered = cast(nodes.Template, metering.Metering().visit(source))
        metered.set_environment(self)
        return super()._generate(metered, *arguments, **named)

    def concat(self, pieces: Any) -> str:
        parts = list(pieces)
        current.get().spend(len(parts), sum(map(len, parts)))
        return "".join(parts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = current.get()
        if operator == "%" and isinstance(left, str):
            allowances.formatting(budget, left, right)
        elif operator == "*" and not (isinstance(left, int | float) and isinstance(right, int | float)):
            times = next((n for n in (left, right) if isinstance(n, int)), 0)
            _repeat(budget, right if isinstance(left, int) else left, max(0, times))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > LONGEST_NUMBER:
                raise TemplateLimitError(f"it makes a number of more than {LONGEST_NUMBER:,} bits")
        else:
            budget.charge((left, right))
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int):
            budget.charge(result)
        return result

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise jinja2.exceptions.SecurityError(f"{type(obj).__name__}.{attribute} is not for chat templates")

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = current.get()
        named = {name: value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")}
        if isinstance(obj, BuiltinMethodType) or hasattr(obj, "__wrapped__"):
            # str.format comes wrapped by the sandbox.
            method = getattr(obj, "__wrapped__", obj)
            subject, name = getattr(method, "__self__", None), method.__name__
            rules = next((rules for kind, rules in allowances.METHODS.items() if isinstance(subject, kind)), {})
            if name not in rules:
                raise jinja2.exceptions.SecurityError(f"{type(subject).__name__}.{name} is not for chat templates")
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
            raise jinja2.exceptions.SecurityError(f"{type(owner).__name__} is not callable in chat templates")
        budget.charge((args, named))
        result = super().call(context, obj, *args, **kwargs)
        if isinstance(result, dict):
            budget.charge(result)
        return result


class Generation(Extension):
    """``{% generation %}`` marks what the assistant said, for training; the text is the same without."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Macro) -> str:
        return caller()


class Attributes(Namespace):
    """``namespace``, which keeps no names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that ``namespace(self=...)`` works
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


class Dict:
    """``dict``, without the type's attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as transformers writes it into prompts: nothing is escaped for HTML, or for ASCII."""
    budget = current.get()
    wide = 0 if indent is None else len(indent) if isinstance(indent, str) else int(indent)
    if wide > 64 or any(len(part) > 64 for part in separators or ()):
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


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace keeps no name with an underscore before it: {name!r}")


def _repeat(budget: Budget, value: Any, times: int) -> None:
    """Pay for a value so many times over, before it is made."""
    if isinstance(value, str):
        budget.spend(1, len(value) * times)
        return
    steps, characters = budget.steps, budget.characters
    budget.charge(value)
    budget.spend((steps - budget.steps) * times, (characters - budget.characters) * times)


def _metered_filter(name: str, function: Callable[..., Any], rule: allowances.Rule) -> Callable[..., Any]:
    first = 0 if _PassArg.from_obj(function) is None else 1  # jinja hands its context on before the value

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
            return _counted(result)
        budget.charge(result if name not in ("first", "last", "d", "default", "attr") else None)
        return result

    return metered


def _counted(items: Iterator[Any]) -> Iterator[Any]:
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
    """Every ``{{ }}`` passes here before it becomes text. That it takes the context keeps jinja from evaluating
    constants while it compiles."""
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
        "dict": Dict(),
        "cycler": Cycler,
        "joiner": Joiner,
        "namespace": Attributes,
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
    }
    return environment


ENVIRONMENT = _environment()
GLOBALS = tuple(ENVIRONMENT.globals.values())
