"""Structured output: every text matches its schema, regex or grammar, and ends where that allows it."""

import gc
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.errors import DependencyError, UnsupportedError, UsageError
from intaglio.exporter import export
from intaglio.runtime import TextGenerator
from intaglio.runtime.sequence.constraint import Constraint, Grammars
from intaglio.runtime.text.tokenizer import Tokenizer
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator, token_id, tokenizer_of
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
# Bounded in every part, so that every text is finished within some number of tokens.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "year": {"type": "integer", "minimum": 1000, "maximum": 2100},
        "tall": {"type": "boolean"},
        "kind": {"enum": ["ship", "album", 7, None]},
        "parts": {
            "type": "array",
            "items": {"type": "string", "pattern": "^[a-z]{1,4}$"},
            "minItems": 1,
            "maxItems": 3,
        },
        "where": {
            "type": "object",
            "properties": {"x": {"type": "number", "minimum": -1, "maximum": 1, "multipleOf": 0.25}},
            "required": ["x"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "year", "tall", "kind", "parts"],
    "additionalProperties": False,
}
STARTS = ["The album was", "In 1942, the ship", "{", '{"name": "', "The species is found in", "=", "1", "\n"]


def constraint_of(grammars: Grammars, **form: Any) -> Constraint:
    """Return a constraint that ends with token 2."""
    found = grammars.constraint({2}, **form)
    assert found is not None
    return found


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Return True if a value is valid by JSON Schema, for the keywords that are used here."""
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    if "enum" in schema:
        return any(value == one and type(value) is type(one) for one in schema["enum"])
    kind = schema["type"]
    if not isinstance(value, kinds[kind]) or (kind in ("integer", "number") and isinstance(value, bool)):
        return False
    match kind:
        case "object":
            known = schema["properties"]
            return (
                set(schema["required"]) <= set(value)
                and (set(value) <= set(known) or bool(schema["additionalProperties"]))
                and all(fits(known[name], part) for name, part in value.items())
            )
        case "array":
            inside = schema["minItems"] <= len(value) <= schema["maxItems"]
            return bool(inside) and all(fits(schema["items"], part) for part in value)
        case "string":
            return len(value) <= schema.get("maxLength", 1000) and bool(re.search(schema.get("pattern", ""), value))
        case "integer" | "number":
            inside = schema["minimum"] <= value <= schema["maximum"]
            return bool(inside and value % schema.get("multipleOf", 1) == 0)
    return True


def test_the_check_of_this_file_refuses_what_does_not_fit() -> None:
    good = {"name": "Ada", "year": 1815, "tall": True, "kind": None, "parts": ["a"], "where": {"x": 0.25}}
    assert fits(SCHEMA, good)
    changes: tuple[dict[str, Any], ...] = (
        {"name": "A" * 13},
        {"name": 5},
        {"year": 999},
        {"year": 1815.5},
        {"year": True},
        {"tall": 1},
        {"kind": "boat"},
        {"kind": 7.0},
        {"parts": []},
        {"parts": ["ab", "c", "d", "e"]},
        {"parts": ["A"]},
        {"where": {"x": 0.3}},
        {"where": {}},
        {"more": 1},
    )
    for change in changes:
        assert not fits(SCHEMA, good | change), change
    assert not fits(SCHEMA, {"name": "Ada"})


@pytest.fixture(scope="module", params=["tiny-qwen2", "tiny-exaone4"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    folder = tmp_path_factory.mktemp("trained") / request.param
    export(CHECKPOINTS / request.param, folder)
    return text_generator(folder, threads=1)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm"))


@pytest.mark.quick_one_in(2)
def test_two_hundred_texts_fit_their_schema(trained: TextGenerator) -> None:
    """Generate a hundred texts for each family, some greedy, the others sampled."""
    prompts = [start + " it" * (i // len(STARTS)) for i, start in zip(range(24), STARTS * 3, strict=False)]
    results = trained.generate(prompts, json_schema=SCHEMA, max_new_tokens=300, temperature=0.0)
    sampled = [STARTS[i % len(STARTS)] for i in range(76)]
    results += trained.generate(
        sampled, json_schema=SCHEMA, max_new_tokens=300, temperature=1.0, top_k=0, top_p=1.0, seed=3, batch_size=38
    )
    assert len(results) == 100
    assert [one.text for one in results if not fits(SCHEMA, json.loads(one.text))] == []
    assert {one.finish_reason for one in results} == {"stop"}
    assert len({one.text for one in results}) > 70


def test_a_batch_equals_its_single_runs(lm: TextGenerator) -> None:
    """Sequences are at different positions of the grammar, and end at different steps."""
    for settings in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 4}):
        options: dict[str, Any] = {"json_schema": SCHEMA, "max_new_tokens": 200, **settings}
        rows = lm.generate(STARTS, **options, batch_size=3)
        assert rows == lm.generate(STARTS, **options, batch_size=8)
        assert rows[0] == lm.generate(STARTS[0], **options)
        assert len({len(row.token_ids) for row in rows}) > 1
        stream = lm.stream(STARTS[0], **options)
        assert "".join(stream) == rows[0].text
        assert stream.generation == rows[0]


def test_guessed_tokens_change_no_structured_text(lm: TextGenerator) -> None:
    prompt = '[{"name": "alpha", "on": true}, {"name": "beta", "on": true}, ' * 2
    item = {
        "type": "object",
        "properties": {"name": {"enum": ["alpha", "beta"]}, "on": {"type": "boolean"}},
        "required": ["name", "on"],
        "additionalProperties": False,
    }
    schema = {"type": "array", "items": item, "minItems": 2, "maxItems": 2}
    for settings in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 4}):
        options: dict[str, Any] = {"json_schema": schema, "max_new_tokens": 350, **settings}
        plain = lm.generate(prompt, **options, speculate=False)
        assert plain == lm.generate(prompt, **options, speculate=True)
        assert len(json.loads(plain.text)) == 2


@pytest.mark.parametrize(
    "regex", [r"[0-9]{4}-(0[1-9]|1[0-2])", r"(yes|no)", r"[가-힣]{2}😀", r"(ab){2,5}c", r'"[^"]{0,9}"'], ids=str
)
def test_a_text_fits_its_expression(lm: TextGenerator, regex: str) -> None:
    rows = lm.generate([[token] for token in range(20, 50)], regex=regex, max_new_tokens=80, temperature=1.5, seed=1)
    assert [row.text for row in rows if not re.fullmatch(regex, row.text)] == []
    assert {row.finish_reason for row in rows} == {"stop"}


def test_a_grammar_in_larks_notation(lm: TextGenerator) -> None:
    grammar = """
        start: sum
        sum: term ("+" term){0,2}
        term: NUMBER | "(" sum ")"
        NUMBER: /[1-9][0-9]?/
    """
    rows = lm.generate(
        [[token] for token in range(20, 44)], grammar=grammar, max_new_tokens=400, temperature=1.0, seed=2
    )
    finished = [row for row in rows if row.finish_reason != "length"]
    assert len(finished) >= 12
    for row in finished:
        assert re.fullmatch(r"[0-9+()]+", row.text)
        assert eval(row.text) > 0


def test_an_end_token_is_generated_only_where_the_text_may_end(lm: TextGenerator) -> None:
    """Samples of [0-9]{2,} have at least two digits, and the model chooses their lengths."""
    rows = lm.generate(
        [[token] for token in range(8, 248)], regex="[0-9]{2,}", temperature=3.0, seed=1, max_new_tokens=60
    )
    ended = [row for row in rows if row.finish_reason == "eos"]
    assert len(ended) > 100
    assert all(re.fullmatch("[0-9]{2,}", row.text) and row.token_ids[-1] == 2 for row in ended)
    assert len({len(row.text) for row in ended}) > 5
    assert all(row.finish_reason == "length" and len(row.token_ids) == 60 for row in rows if row not in ended)


def test_any_token_may_be_the_end_token_and_none(lm: TextGenerator) -> None:
    """A digit that is the end token is not text; without an end token, text goes on to the limit where it can."""
    seven = tokenizer_of(lm).backend.token_to_id("7")
    rows = lm.generate(
        [[t] for t in range(8, 108)], regex="[5-9]{2,}", temperature=3.0, seed=1, eos_token_id=seven, max_new_tokens=60
    )
    ended = [row for row in rows if row.finish_reason == "eos"]
    assert len(ended) > 50
    assert all(re.fullmatch("[5689]{2,}", row.text) and row.token_ids[-1] == seven for row in ended)
    free = lm.generate([5], regex="[5-9]{2,}", eos_token_id=[], max_new_tokens=30)
    assert (free.finish_reason, len(free.token_ids)) == ("length", 30)
    assert lm.generate([5], regex="[5-9]{2}", eos_token_id=[]).finish_reason == "stop"
    assert lm.generate([5], regex="").text == ""


def test_without_room_the_text_is_unfinished_and_says_so(lm: TextGenerator) -> None:
    cut = lm.generate("x", json_schema=SCHEMA, max_new_tokens=5)
    assert (cut.finish_reason, len(cut.token_ids)) == ("length", 5)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(cut.text)


def test_a_stop_string_ends_a_structured_text_too(lm: TextGenerator) -> None:
    whole = lm.generate("x", regex="abcdef")
    cut = lm.generate("x", regex="abcdef", stop="d")
    assert (whole.text, cut.text, cut.finish_reason) == ("abcdef", "abc", "stop")


def test_json_may_be_laid_out_but_not_padded(lm: TextGenerator) -> None:
    grammars = Grammars(lm.tokenizer, 288)
    schema = {"type": "array", "items": {"type": "integer"}}
    for text, allowed in {
        "[1,2]": True,
        "[1, 2]": True,
        "[\n    1,\n    2\n]": True,
        "[\n\t1]": True,
        "[  1]": False,
        "[\n\n1]": False,
        " [1]": False,
    }.items():
        constraint = constraint_of(grammars, json_schema=schema)
        fine = True
        for token in tokenizer_of(lm).backend.encode(text).ids:
            fine = fine and np.isfinite(constraint.allow(np.zeros(288, dtype=np.float32))[token])
            if not fine:
                break
            constraint.accept(token)
        assert (text, fine) == (text, allowed)


def test_a_schema_may_be_text_or_a_boolean(lm: TextGenerator) -> None:
    assert lm.generate("x", json_schema='{"const": 15}').text == "15"
    assert json.loads(lm.generate("x", json_schema={"enum": ["é\n😀"]}).text) == "é\n😀"
    assert lm.generate("x", json_schema=True, max_new_tokens=4).token_ids
    with pytest.raises(UsageError, match="the JSON schema is false, which nothing fits; give an object"):
        lm.generate("x", json_schema=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"json_schema": {"type": "nonsense"}}, "the JSON schema cannot be used: Invalid type: nonsense"),
        ({"json_schema": "nope"}, "the JSON schema is not JSON (Expecting value: line 1 column 1 (char 0)); give an"),
        ({"json_schema": [1]}, "the JSON schema must be an object or a boolean, not [1]; see json-schema.org"),
        ({"json_schema": "5"}, "the JSON schema must be an object or a boolean, not 5; see json-schema.org"),
        (
            {"json_schema": {"const": {1, 2}}},
            "the JSON schema is not JSON (Object of type set is not JSON serializable)",
        ),
        ({"json_schema": {"type": "integer", "minimum": 5, "maximum": 3}}, "minimum (5) is greater than maximum (3)"),
        ({"json_schema": {"type": "object", "if": {}}}, 'the JSON schema cannot be used: Unimplemented keys: ["if"]'),
        ({"json_schema": {"x-guidance": {"spaces": 1}}}, "the JSON schema cannot be used: unknown field `spaces`"),
        ({"json_schema": {"$ref": "https://example.org/x"}}, "the JSON schema cannot be used: Resource 'https://exam"),
        ({"regex": "("}, "the regex cannot be used: "),
        ({"regex": "(?=a)b"}, "look-around, including look-ahead and look-behind, is not supported"),
        ({"regex": 5}, "regex must be text, not int"),
        ({"grammar": "start: thing"}, 'unknown name: "thing"'),
        ({"grammar": "thing: /a/"}, "the grammar cannot be used: no start rule found"),
        ({"grammar": 'start: start "a"'}, "the grammar allows no text at all: "),
        ({"regex": "", "eos_token_id": []}, "the regex allows no text at all: no token of the vocabulary fits"),
        ({"regex": "a", "grammar": "start: /a/"}, "regex and grammar cannot be combined; give one of them"),
        ({"regex": "a", "json_schema": {}}, "json_schema and regex cannot be combined; give one of them"),
    ],
    ids=str,
)
def test_forms_that_are_none(lm: TextGenerator, options: dict[str, Any], message: str) -> None:
    for call in (lm.generate, lm.stream):
        with pytest.raises(UsageError) as error:
            call("x", **options)
        assert message in str(error.value)
        assert "<state>" not in str(error.value)


def chain(rules: int) -> str:
    names = "".join(f"a{i}: a{i + 1}\n" for i in range(rules - 2))
    return f'start: a0\n{names}a{rules - 2}: "x"\n'


def references(count: int) -> dict[str, Any]:
    names = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(count - 1)}
    return {"$ref": "#/$defs/a0", "$defs": {**names, f"a{count - 1}": {"const": 1}}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


TOO_LARGE: dict[str, tuple[dict[str, Any], str]] = {
    "a regex of 12 MB": (
        {"regex": "a" * 12_000_000},
        "the regex has 12,000,000 characters and 100,000 are allowed; simplify it",
    ),
    "a chain of rules": (
        {"grammar": chain(3000)},
        "the grammar has 3,000 colons, one for each rule, and 1,000 are allowed; simplify it",
    ),
    "a long grammar": (
        {"grammar": 'start: "' + "x" * 600_000 + '"'},
        "the grammar has 600,009 characters and 500,000 are",
    ),
    "a chain of references": (
        {"json_schema": references(5000)},
        "the JSON schema has 5,000 references and 1,000 are allowed",
    ),
    "a large schema": (
        {"json_schema": {"enum": ["x" * 600_000]}},
        "the JSON schema has 600,014 characters and 500,000 are",
    ),
    "a large schema as text": (
        {"json_schema": " " * 600_000},
        "the JSON schema has 600,000 characters and 500,000 are",
    ),
    "a deep schema": (
        {"json_schema": nested(120)},
        "the JSON schema is not JSON (it is nested deeper than 100 levels)",
    ),
    "a schema that Python cannot walk": (
        {"json_schema": nested(100_000)},
        "the JSON schema is nested too deeply; give a",
    ),
    "a deep schema as text": (
        {"json_schema": "[" * 100_000},
        "the JSON schema is not JSON (it is nested deeper than 100",
    ),
    "a deep regex": ({"regex": "(" * 10_000 + "a" + ")" * 10_000}, "the regex cannot be used: at 1(8): invalid regex"),
    "a deep grammar": ({"grammar": f'start: {"(" * 5000}"x"{")" * 5000}'}, "lark grammar too deeply nested"),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_form_that_is_too_large_is_refused_before_the_library_reads_it(lm: TextGenerator, case: str) -> None:
    options, message = TOO_LARGE[case]
    with pytest.raises(UsageError) as error:
        lm.generate("x", **options)
    assert message in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_form_of_the_largest_size_can_be_used(lm: TextGenerator) -> None:
    assert lm.generate("x", grammar=chain(1000)).text == "x"
    assert lm.generate("x", json_schema=references(1000)).text == "1"
    assert lm.generate("x", regex="|".join(["abcdefghi"] * 10_000), max_new_tokens=50).text == "abcdefghi"


def test_a_grammar_that_outgrows_its_limits_says_where(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    constraint = constraint_of(Grammars(lm.tokenizer, 288), regex="[a-z]+")
    constraint.accept(token_id(tokenizer_of(lm).backend, "a"))
    with pytest.raises(UsageError) as error:
        constraint.accept(token_id(tokenizer_of(lm).backend, "5"))
    assert str(error.value).startswith("the regex allows no further than 1 tokens: ")
    assert "doesn't satisfy the grammar" in str(error.value)


def test_a_vocabulary_that_lacks_what_the_form_needs() -> None:
    backend = Backend(models.BPE({character: i for i, character in enumerate("ab")}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    grammars = Grammars(Tokenizer(backend, None), 2)
    with pytest.raises(UsageError, match="the regex allows no text at all"):
        grammars.constraint(frozenset(), regex="c")


def test_a_tokenizer_of_an_unknown_kind() -> None:
    backend = Backend(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UnsupportedError) as error:
        Grammars(Tokenizer(backend, None), 2).constraint({1}, regex="a")
    assert str(error.value).startswith("tokenizer.json is of a kind that llguidance cannot constrain (can't determine")
    assert str(error.value).endswith("; generate without json_schema, regex and grammar")


def test_the_vocabulary_may_be_larger_or_smaller_than_the_tokenizers(lm: TextGenerator) -> None:
    """Logits are often padded to a round number; ids without a token are never allowed."""
    for size in (100, 288, 320):
        constraint = constraint_of(Grammars(lm.tokenizer, size), regex="[ -~]+")
        allowed = np.isfinite(constraint.allow(np.zeros(size, dtype=np.float32)))
        assert allowed.size == size
        assert allowed[:95].sum() > 50
        assert not allowed[288:].any()


def test_models_with_one_tokenizer_share_its_vocabulary(lm: TextGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    import llguidance

    made: list[str] = []

    def counting(text: str, eos_token: int) -> Any:
        made.append(text)
        return real(text, eos_token=eos_token)

    real = llguidance.LLTokenizer
    monkeypatch.setattr(llguidance, "LLTokenizer", counting)
    assert lm.tokenizer is not None
    tokenizer = replace(lm.tokenizer, eos_token_id=7)  # so that no other test has made its vocabulary
    first, second = Grammars(tokenizer, 300), Grammars(replace(tokenizer), 200)
    first.prepare()
    second.prepare()
    assert second.constraint({0}, regex="[a-z]+") is not None
    assert len(made) == 1
    del first, second
    gc.collect()
    Grammars(tokenizer, 300).prepare()
    assert len(made) == 2


def test_an_artifact_without_a_tokenizer(tmp_path: Path) -> None:
    bare = text_generator(fakes.language_model(tmp_path / "bare", tokenizer=False))
    with pytest.raises(UsageError, match=r"regex needs text, and this artifact has no tokenizer\.json; leave it out"):
        bare.generate([5], regex="a")


@pytest.fixture
def _without_llguidance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)


@pytest.mark.usefixtures("_without_llguidance")
def test_without_llguidance_the_extra_is_named(lm: TextGenerator) -> None:
    with pytest.raises(DependencyError) as error:
        lm.generate("x", regex="a")
    assert str(error.value).startswith("structured output needs the package llguidance, which cannot be imported (")
    assert str(error.value).endswith("); pip install 'intaglio[structured]'")
    assert lm.generate("x", max_new_tokens=2).token_ids
