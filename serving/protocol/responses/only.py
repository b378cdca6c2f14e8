"""Parameters that have few values, and a reason for which the others are refused."""

import json
from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

SHOWN = 60  # characters of a refused value


def only(*allowed: Any, reason: str) -> BeforeValidator:
    """Return a validator that refuses every value but these and null; ``reason`` says why, and what to do."""

    def check(value: Any) -> Any:
        if value is None or any(type(value) is type(one) and value == one for one in allowed):
            return value
        raise refusal(value, reason)

    return BeforeValidator(check)


def refusal(value: Any, reason: str) -> PydanticCustomError:
    """Return the error of a value that is not supported."""
    scalar = isinstance(value, str | int | float)
    name = json.dumps(value, ensure_ascii=False)[:SHOWN] if scalar else "a value of this type"
    return PydanticCustomError("unsupported", "{name} is not supported: {reason}", {"name": name, "reason": reason})
