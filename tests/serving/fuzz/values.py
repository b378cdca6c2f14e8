"""Hostile values: of the wrong type, of the right type and extreme, and those that explode when they are used."""

import json
import random
from typing import Any

from .forms import Schema, resolved, value

INTEGERS = (0, -1, 1, 7, 2**31 - 1, 2**31, 2**63, 2**64, 10**9, 10**30, -(10**30))
NUMBERS = (0.0, -0.0, 1e-300, -1e-9, 0.5, 1.0, 2.5, 1e9, 1e308, -1e308)
STRINGS = (
    "",
    " ",
    "\x00",
    "\r\nSet-Cookie: a=b\r\n",
    "\x1b[31m",
    "\u202e\ufeff\ufffe\uffff",
    "🦑" * 1000,
    "a" * 100_000,
    "<|im_start|>system",
    "<|im_end|>",
    "{{ ().__class__.__mro__ }}",
    "{% for a in range(10**9) %}x{% endfor %}",
    "../../../etc/passwd",
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
    "qwen2\n",
    "ﷺ" * 500,
    "\u0301" * 5000,
)
REGEXES = (
    "(a+)+$",
    "((a?){100}){100}",
    "(.{1,1000}){1,1000}",
    "a{1000000}",
    "(" * 2000 + ")" * 2000,
    "[",
    "(?=a)b",
    "\\p{L}{5000}",
    "|".join(f"w{n}" for n in range(20_000)),
    "(a|b|ab)*" * 200 + "c{50}",
)
GRAMMARS = (
    "start: start start | start",
    "start: a\na: b\nb: a",
    'start: "a"~1..1000000',
    "start: /(a+)+b/",
    "start: " + " | ".join(f'"w{n}"' for n in range(5000)),
    "start: undefined",
    "%import common.WORD\nstart: WORD",
    "\x00",
)


def schemas() -> list[Any]:
    """Return JSON schemas that are wrong, or that explode."""
    tree: dict[str, Any] = {"type": "string"}
    for _ in range(14):
        tree = {"anyOf": [tree, {"type": "object", "properties": {"a": tree}, "required": ["a"]}]}
    deep: dict[str, Any] = {}
    for _ in range(80):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    return [
        tree,
        deep,
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"$ref": "http://127.0.0.1:1/schema"},
        {"$ref": "file:///etc/passwd"},
        {"enum": [str(n) for n in range(20_000)]},
        {"enum": []},
        {"type": "string", "minLength": 10**9},
        {"type": "string", "minLength": 10, "maxLength": 3},
        {"type": "string", "pattern": "(a+)+$"},
        {"type": "string", "pattern": "a{1,100000}"},
        {"type": "array", "items": {}, "minItems": 10**9},
        {"type": "array", "uniqueItems": True, "contains": {"not": {}}},
        {"type": "integer", "multipleOf": 1e-30},
        {"type": "integer", "minimum": 10**40, "maximum": 10**41},
        {"properties": {f"p{n}": {"type": "string"} for n in range(3000)}, "type": "object"},
        {"allOf": [{"properties": {f"p{n}": {"type": "string"}}, "required": [f"p{n}"]} for n in range(500)]},
        {"oneOf": [{"properties": {"a": {"minimum": n}}} for n in range(500)]},
        {"patternProperties": {"(a|a)*$": {"type": "integer"}}},
        {"not": {"not": {"not": {}}}},
        {"type": "nothing"},
        {"type": ["string", 5]},
        False,
        {"const": {"a": [1] * 5000}},
        {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(2000)}, "$ref": "#/$defs/d0"},
    ]


SCHEMAS = schemas()

ENDLESS = "[" * 90 + "]" * 90
WRONG: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"": None},
    [{}] * 3000,
    ["x"] * 10_000,
    [1] * 10_000,
    {f"k{n}": n for n in range(10_000)},
    {str(n): 1 for n in range(50_000)},
    {"type": "text", "text": []},
    {"__class__": "a", "__proto__": {"a": 1}, "constructor": {}},
    json.loads(ENDLESS),
)


def hostile(schema: Schema, root: Schema, draw: random.Random) -> Any:
    """Return a hostile value for a parameter, of its own type or of another."""
    kinds = [resolved(one, root) for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), schema)]
    kind = draw.choice(kinds)
    choice = draw.random()
    if choice < 0.4:
        return draw.choice((*WRONG, *INTEGERS, *NUMBERS, *STRINGS))
    if choice < 0.5:
        return draw.choice((draw.choice(SCHEMAS), draw.choice(REGEXES), draw.choice(GRAMMARS)))
    match kind.get("type"):
        case "integer":
            return draw.choice(INTEGERS)
        case "number":
            return draw.choice((*NUMBERS, *INTEGERS))
        case "string":
            return draw.choice(STRINGS)
        case "array":
            one = value(kind.get("items", {}), root)
            return draw.choice(([one] * 10_000, [one, hostile(kind.get("items", {}), root, draw)], []))
        case "object":
            known = {key: hostile(inner, root, draw) for key, inner in kind.get("properties", {}).items()}
            return dict(draw.sample(sorted(known.items(), key=lambda item: item[0]), min(len(known), 2)))
        case _:
            return draw.choice(WRONG)


def changed(body: Any, draw: random.Random) -> Any:
    """Return a body with one of its inner values replaced, removed or repeated."""
    copy = json.loads(json.dumps(body))
    places: list[tuple[Any, Any]] = []
    rest = [copy]
    while rest:
        one = rest.pop()
        keys = list(one) if isinstance(one, dict) else list(range(len(one)))
        places += [(one, key) for key in keys]
        rest += [one[key] for key in keys if isinstance(one[key], dict | list)]
    parent, key = draw.choice(places)
    match draw.randrange(4):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, list):
            parent += [parent[key]] * 2000
        case 2 if isinstance(parent, dict):
            parent[draw.choice(STRINGS)] = parent[key]
        case _:
            parent[key] = draw.choice((*WRONG, *INTEGERS, *NUMBERS, *STRINGS))
    return copy
