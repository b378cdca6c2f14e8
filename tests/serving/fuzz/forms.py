"""The endpoints that take a body, and a good request for each; found by asking the application."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from unittest.mock import patch

import httpx
from intaglio.serving.app import ROUTES, create_app
from intaglio.serving.engine.models import Models
from intaglio.serving.forms import Body
from intaglio.serving.settings import Settings
from pydantic import TypeAdapter
from starlette.testclient import TestClient

Schema = Mapping[str, Any]

TEXTS: Mapping[str, Any] = {"messages": [{"role": "user", "content": "Where is Seoul?"}]}
"""Values of parameters whose schema has too many choices to guess a good one."""


class Endpoint(NamedTuple):
    """A path, the JSON schema of its body, and a body that is answered with 200."""

    path: str
    schema: Schema
    good: dict[str, Any]


def forms() -> dict[str, type[Body]]:
    """Return the form of the body of each path that is posted to."""
    found: dict[str, type[Body]] = {}
    asked: list[type[Body]] = []

    def validate(form: type[Body], values: Any) -> Body:
        asked.append(form)
        return TypeAdapter(form).validate_python(values)

    settings = Settings()
    with (
        patch.object(Body, "model_validate", classmethod(validate)),
        TestClient(create_app(Models({}, settings), settings), raise_server_exceptions=False) as client,
    ):
        for path in paths("POST"):
            asked.clear()
            client.post(path, json={"an unknown parameter": 1})
            if asked:
                found[path] = asked[0]
    return found


def paths(method: str) -> list[str]:
    """Return the paths of the application that have a method and no parameter."""
    return [route.path for route in ROUTES if method in (route.methods or ()) and "{" not in route.path]


def endpoints(address: str, models: Sequence[str]) -> list[Endpoint]:
    """Return the endpoints of a server, each with the first body that it answers with 200.

    Raises:
        AssertionError: an endpoint answers none of the bodies that its form suggests.
    """
    found = []
    with httpx.Client(base_url=address, timeout=60) as client:
        for path, form in forms().items():
            schema = form.model_json_schema(by_alias=True)
            tried = []
            for body in _suggestions(schema, models):
                answer = client.post(path, json=body)
                if answer.status_code == 200:
                    found.append(Endpoint(path, schema, body))
                    break
                tried.append(f"{json.dumps(body)}: {answer.text}")
            else:
                raise AssertionError(f"no good body for {path}:\n" + "\n".join(tried))
    return found


def _suggestions(schema: Schema, models: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield bodies of the required parameters, and of those that limit the work, for each model."""
    properties = schema["properties"]
    for model in models:
        body = {name: value(properties[name], schema, name) for name in schema.get("required", ())}
        for name in ("max_tokens", "max_output_tokens"):
            if name in properties:
                body[name] = 4
        for name in ("prompt", "input"):
            if name in properties:
                body[name] = "In 1942"
        yield {**body, "model": model}


def value(schema: Schema, root: Schema, name: str = "") -> Any:
    """Return a value that fits a schema, the simplest one."""
    if name in TEXTS:
        return TEXTS[name]
    schema = resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        return value(choice, root)
    match schema.get("type"):
        case "object":
            return {key: value(schema["properties"][key], root, key) for key in schema.get("required", ())}
        case "array":
            return [value(schema.get("items", {}), root)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return "Seoul"


def resolved(schema: Schema, root: Schema) -> Schema:
    """Return a schema, or the definition that it refers to."""
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema
