"""Constraining text to a JSON schema, a regular expression or a grammar, through llguidance.

Before each token the grammar decides which tokens may come next, and the others cannot be chosen. An end token is
allowed exactly where the text may end; where nothing else is allowed, generation ends by itself.
"""

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from copy import copy
from hashlib import sha256
from importlib import import_module
from threading import Lock
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from ...errors import ConstraintError, DependencyError, UnsupportedError, UsageError
from ...files.json_file import parse_json
from ...files.library_errors import library_errors
from ..text.tokenizer import Tokenizer
from .sampler import Floats

Schema = Mapping[str, Any] | str | bool

# White space in JSON as people and models write it: none, single spaces, or one line for each entry. Unbounded, a weak
# model can write spaces until it reaches max_new_tokens.
WHITESPACE = r" |\n[ \t]{0,32}"
# llguidance aborts the process where a regular expression has millions of characters, and follows rules that name each
# other, or references, on the native stack, which 3,000 in a chain overflow. All else has limits of its own.
MOST_CHARACTERS = {"regex": 100_000, "grammar": 500_000, "json_schema": 500_000}
MOST_RULES = 1000
MOST_KEPT = 8
_SCHEMA = re.compile(r"%json\s*\{")
REASON = 500  # characters of llguidance's explanation; the state of its parser follows


class Lookahead(Protocol):
    """What a constraint allows after further tokens, which the sequence itself has not taken."""

    def forced(self, most: int) -> list[int]:
        """Take the next tokens that are the only ones allowed, at most ``most``; return them."""
        ...

    def take(self, token: int) -> bool:
        """Take a token; return False where it is not allowed, or where it may end the text."""
        ...


class Constraint(Protocol):
    """The tokens that a sequence may take next, given those that it has taken."""

    @property
    def finished(self) -> bool:
        """True when the text is complete and nothing can follow it."""
        ...

    def allow(self, logits: Floats) -> Floats:
        """Return a copy of logits [V] with minus infinity for every token that is not allowed next."""
        ...

    def accept(self, token: int) -> None:
        """Take the token that was chosen; not called for the end token."""
        ...

    def ahead(self) -> Lookahead:
        """Return what is allowed after further tokens."""
        ...

    def fresh(self) -> "Constraint":
        """Return the same constraint at the beginning of a text."""
        ...

    def copy(self) -> "Constraint":
        """Return the same constraint at the same position of a text."""
        ...


class Grammars:
    """Makes constraints for the vocabulary of one model; several threads may use it.

    The first constraint prepares the vocabulary for llguidance, which takes about a second for 150,000 tokens and holds
    the interpreter's lock; ``prepare`` does so before. Models with the same tokenizer share what is prepared, some 100
    MB, as long as one of them is there. The last constraints are kept: one schema serves many requests.
    """

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._prepared: _Vocabulary | None = None
        self._made: dict[tuple[str, frozenset[int]], GrammarConstraint] = {}
        self._lock = Lock()

    def prepare(self) -> None:
        """Prepare the vocabulary; errors as ``constraint``."""
        if self._tokenizer is not None:
            self._prepare(import_llguidance(), self._tokenizer)

    def constraint(
        self,
        end_tokens: AbstractSet[int],
        *,
        json_schema: Schema | None = None,
        regex: str | None = None,
        grammar: str | None = None,
        after: str | None = None,
    ) -> Constraint | None:
        """Return the constraint of a call; None where it has none.

        Args:
            after: a tag. The constraint is for the text after its first occurrence; before it any text may come.

        Raises:
            UsageError: more than one is given, or the artifact has no tokenizer.
            ConstraintError: the schema, the expression or the grammar cannot be used.
            UnsupportedError: llguidance does not support the tokenizer.
            DependencyError: llguidance is not installed.
        """
        options = {"json_schema": json_schema, "regex": regex, "grammar": grammar}
        given = [name for name, value in options.items() if value is not None]
        if not given:
            return None
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} cannot be combined; give one of them")
        if self._tokenizer is None:
            raise UsageError(f"{given[0]} needs text, and this artifact has no tokenizer.json; leave it out")
        library = import_llguidance()
        what = f"the {given[0].replace('_', ' ').replace('json', 'JSON')}"
        with library_errors(lambda reason: ConstraintError(f"{what} cannot be used: {_reason(reason)}; simplify it")):
            source = _source(library, given[0], options[given[0]])
            if after is not None:
                source = _after(self._tokenizer, after, source)
            key = source, frozenset(end_tokens)
            if (made := self._made.get(key)) is not None:
                return made.fresh()
            vocabulary = self._prepare(library, self._tokenizer)
            matcher = library.LLMatcher(vocabulary, source, log_level=0)
        if matcher.is_error():
            raise ConstraintError(f"{what} cannot be used: {_reason(matcher.get_error())}")
        constraint = GrammarConstraint(matcher, what, vocabulary.eos_token, end_tokens, self._vocab_size)
        constraint.check()
        with self._lock:
            if len(self._made) >= MOST_KEPT:
                del self._made[next(iter(self._made))]
            self._made[key] = constraint
        return constraint.fresh()

    def _prepare(self, library: Any, tokenizer: Tokenizer) -> Any:
        with self._lock:
            if self._prepared is None:
                self._prepared = _vocabulary(library, tokenizer)
            return self._prepared.prepared


class _Vocabulary:
    """A ``llguidance.LLTokenizer``, which cannot be referred to weakly itself."""

    def __init__(self, prepared: Any) -> None:
        self.prepared = prepared


_vocabularies: WeakValueDictionary[tuple[bytes, int | None], _Vocabulary] = WeakValueDictionary()
_one_vocabulary = Lock()


def _vocabulary(library: Any, tokenizer: Tokenizer) -> _Vocabulary:
    """Return the vocabulary of a tokenizer, prepared; that of another model with the same one where there is one."""
    text = tokenizer.backend.to_str()
    key = sha256(text.encode("utf-8")).digest(), tokenizer.eos_token_id
    with _one_vocabulary:
        found = _vocabularies.get(key)
        if found is None:
            try:
                # Any special token can be llguidance's own end of text: it only signals that the text may end.
                found = _Vocabulary(library.LLTokenizer(text, eos_token=tokenizer.eos_token_id))
            except Exception as error:  # ValueError, and the errors of its reader of tokenizer.json
                raise UnsupportedError(
                    f"tokenizer.json is of a kind that llguidance cannot constrain ({_reason(str(error))}); "
                    "generate without json_schema, regex and grammar"
                ) from None
            _vocabularies[key] = found
        return found


class GrammarConstraint:
    """The position of one sequence in a grammar.

    Args:
        matcher: a ``llguidance.LLMatcher`` that has taken no token yet.
        what: the grammar's name in messages.
        end: the token by which the matcher signals that the text may end.
        end_tokens: the tokens that end this generation; they have no other meaning in it.
    """

    def __init__(self, matcher: Any, what: str, end: int, end_tokens: AbstractSet[int], vocab_size: int) -> None:
        self._matcher = matcher
        self._start = matcher.deep_copy()
        self._what = what
        self._end = end
        self._end_tokens = np.fromiter(end_tokens, dtype=np.int64)
        self._vocab_size = vocab_size
        self._count = 0
        self.finished = False

    def fresh(self) -> "GrammarConstraint":
        ends = frozenset(self._end_tokens.tolist())
        return GrammarConstraint(self._start.deep_copy(), self._what, self._end, ends, self._vocab_size)

    def copy(self) -> "GrammarConstraint":
        copied = copy(self)
        copied._matcher = self._matcher.deep_copy()
        return copied

    def check(self) -> None:
        """Check that the grammar allows a first token.

        Raises:
            ConstraintError: no text fits.
        """
        self.fresh()._allowed()

    def allow(self, logits: Floats) -> Floats:
        """As ``Constraint.allow``.

        Raises:
            ConstraintError: the grammar exceeds llguidance's limits, or no token fits.
        """
        return np.where(self._allowed(), logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._require(not self._matcher.is_error(), self._matcher.get_error())
        self._count += 1
        self.finished = bool(self._matcher.is_stopped()) and bool(self._matcher.is_accepting())

    def ahead(self) -> Lookahead:
        return GrammarLookahead(self._matcher.deep_copy(), self._end, self._end_tokens, self._vocab_size)

    def _allowed(self) -> NDArray[np.bool_]:
        """Return the tokens that may come next, bool [V]."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._require(not self._matcher.is_error(), self._matcher.get_error())
        known = np.unpackbits(bits, bitorder="little").view(np.bool_)
        may_end = bool(known[self._end]) and bool(self._matcher.is_accepting())
        allowed = np.zeros(self._vocab_size, dtype=np.bool_)
        common = min(known.size, allowed.size)  # padding in either is not allowed
        allowed[:common] = known[:common]
        if self._end < allowed.size:
            allowed[self._end] = False
        allowed[self._end_tokens] = may_end
        self._require(bool(allowed.any()), "no token of the vocabulary fits")
        return allowed

    def _require(self, holds: bool, reason: str) -> None:
        if not holds:
            where = f"no further than {self._count} tokens" if self._count else "no text at all"
            raise ConstraintError(f"{self._what} allows {where}: {_reason(reason)}; correct or simplify it")


class GrammarLookahead:
    """A ``Lookahead`` of a grammar. It ends where llguidance reaches a limit, without an error.

    Args:
        matcher: a copy of the sequence's.
    """

    def __init__(self, matcher: Any, end: int, end_tokens: NDArray[np.int64], vocab_size: int) -> None:
        self._matcher = matcher
        self._excluded = {end, *end_tokens.tolist()}
        self._vocab_size = vocab_size

    def forced(self, most: int) -> list[int]:
        taken: list[int] = []
        for token in self._matcher.compute_ff_tokens()[:most]:
            # llguidance tokenizes the text that must follow; what counts is that its mask has no other token.
            if not self._is_only(token) or not self.take(token):
                break
            taken.append(token)
        return taken

    def take(self, token: int) -> bool:
        if token in self._excluded or token >= self._vocab_size or self._matcher.is_stopped():
            return False
        return bool(self._matcher.try_consume_tokens([token]) == 1)

    def _is_only(self, token: int) -> bool:
        """Return True where the mask of the next token has this one alone."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        byte, bit = divmod(token, 8)
        return np.count_nonzero(bits) == 1 and byte < bits.size and int(bits[byte]) == 1 << bit


def import_llguidance() -> Any:
    """Import llguidance.

    Raises:
        DependencyError: it is not installed; the message names the extra.
    """
    try:
        return import_module("llguidance")
    except ImportError as error:
        raise DependencyError(
            f"structured output needs the package llguidance, which cannot be imported ({error}); "
            "pip install 'intaglio[structured]'"
        ) from None


def _source(library: Any, kind: str, value: Any) -> str:
    """Return the grammar in llguidance's own format."""
    if kind == "json_schema":
        schema = schema_text(value)
        # Defaults; a schema can override them under "x-guidance".
        converted: str = library.LLMatcher.grammar_from_json_schema(schema, {"whitespace_pattern": WHITESPACE})
        return converted
    if not isinstance(value, str):
        raise ConstraintError(f"{kind} must be text, not {type(value).__name__}")
    if kind == "regex":
        _check_size("the regex", len(value), "characters", MOST_CHARACTERS["regex"])
        from_regex: str = library.LLMatcher.grammar_from_regex(value)
        return from_regex
    _check_size("the grammar", len(value), "characters", MOST_CHARACTERS["grammar"])
    rules, schemas = _without_schemas(value)
    _check_size("the grammar", rules.count(":"), "colons, one for each rule,", MOST_RULES)
    _check_size("the grammar", schemas.count('"$ref"'), "references", MOST_RULES)
    from_lark: str = library.LLMatcher.grammar_from_lark(value)
    return from_lark


def _without_schemas(grammar: str) -> tuple[str, str]:
    """Return the rules of a grammar without the JSON schemas in it (``%json {...}``), and those schemas."""
    rules, schemas = [], []
    start = 0
    for found in _SCHEMA.finditer(grammar):
        if found.start() < start:  # inside the last one
            continue
        try:
            _, end = json.JSONDecoder().raw_decode(grammar, found.end() - 1)
        except (ValueError, RecursionError):
            continue
        rules.append(grammar[start : found.start()])
        schemas.append(grammar[found.end() - 1 : end])
        start = end
    return "".join([*rules, grammar[start:]]), "".join(schemas)


def _after(tokenizer: Tokenizer, tag: str, source: str) -> str:
    """Return the grammar, in llguidance's own format, of any text that ends with a tag, and what ``source`` allows."""
    lines = [
        "start: before SPACE? @constrained",
        *text_before("before", tokenizer, tag),
        r"SPACE: /[ \t\r\n]{1,8}/",
    ]
    try:
        inner, *others = json.loads(source)["grammars"]
    except ValueError:  # Lark's notation is not JSON
        inner, others = {"lark_grammar": source}, []
    return json.dumps({"grammars": [{"lark_grammar": "\n".join(lines)}, {**inner, "name": "constrained"}, *others]})


def text_before(rule: str, tokenizer: Tokenizer, tag: str) -> list[str]:
    """Return lines that define a rule of Lark's notation: any text up to the first occurrence of a tag, and the tag."""
    shown = in_grammar(tokenizer, tag)
    if shown.startswith("<"):
        return [f"{rule}: /(.|\\n)*/ {shown}"]
    return [f"{rule}[lazy]: {rule.upper()}_TEXT {shown}", f"{rule.upper()}_TEXT: /(.|\\n)*/"]


def in_grammar(tokenizer: Tokenizer, tag: str) -> str:
    """Return a tag in Lark's notation: as a token where the tokenizer has it as one, else as text.

    llguidance takes added tokens in angle brackets for special ones, which text in a grammar does not match.
    """
    token = tokenizer.backend.token_to_id(tag)
    return json.dumps(tag, ensure_ascii=False) if token is None else f"<[{token}]>"


def fits_schema(schema: Schema, value: Any) -> bool:
    """Return True where a JSON value could have been written under a schema: its keys have the schema's order.

    Raises:
        ConstraintError: the schema cannot be used.
        DependencyError: llguidance is not installed.
    """
    library = import_llguidance()
    with library_errors(lambda reason: ConstraintError(f"the JSON schema cannot be used: {_reason(reason)}")):
        source = _source(library, "json_schema", schema)
        matcher = library.LLMatcher(library.LLTokenizer("byte"), source, log_level=0)
        text = json.dumps(value, ensure_ascii=False).encode()
        return bool(matcher.try_consume_tokens(list(text)) == len(text) and matcher.is_accepting())


def schema_text(value: Any) -> str:
    """Return a JSON schema as text, from a mapping, a boolean, or text.

    Raises:
        ConstraintError: it is not a schema, or a very large one.
    """
    try:
        if isinstance(value, str):
            _check_size("the JSON schema", len(value), "characters", MOST_CHARACTERS["json_schema"])
        text = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        schema = parse_json(text)
        text = json.dumps(schema, allow_nan=False)
    except RecursionError:
        raise ConstraintError("the JSON schema is nested too deeply; give a flatter one") from None
    except (ValueError, TypeError) as error:
        raise ConstraintError(
            f"the JSON schema is not JSON ({error}); give an object such as {{'type': 'object'}}"
        ) from None
    if not isinstance(schema, Mapping | bool):
        raise ConstraintError(f"the JSON schema must be an object or a boolean, not {text[:60]}; see json-schema.org")
    if schema is False:
        raise ConstraintError("the JSON schema is false, which nothing fits; give an object")
    _check_size("the JSON schema", len(text), "characters", MOST_CHARACTERS["json_schema"])
    _check_size("the JSON schema", text.count('"$ref"'), "references", MOST_RULES)
    return "{}" if schema is True else text


def _check_size(what: str, count: int, of: str, most: int) -> None:
    """Check a size before llguidance does any work.

    Raises:
        ConstraintError: the size is above ``most``.
    """
    if count > most:
        raise ConstraintError(f"{what} has {count:,} {of} and {most:,} are allowed; simplify it")


def _reason(error: str) -> str:
    """Return llguidance's explanation without the state of its parser."""
    text = error.partition("<state>")[0].strip()
    return text if len(text) <= REASON else text[:REASON] + " ..."
