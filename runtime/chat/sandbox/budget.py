"""What one rendering of a chat template may spend: steps, and characters that it looks at or makes.

A template is a program from whoever published the checkpoint. Everything in it that repeats or grows is charged before
it happens, so that both time and memory are bounded by the budget, whatever the template does.
"""

from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from contextvars import ContextVar
from typing import Any

from jinja2.utils import Namespace

STEPS = 1_000_000
CHARACTERS = 32_000_000
PER_INPUT = 64  # so many more steps and characters for each item and character of the messages and tools
LONGEST_NUMBER = 4096  # bits

current: ContextVar["Budget"] = ContextVar("current")


class TemplateLimitError(Exception):
    """The template asks for more than a chat template may have."""


class Budget:
    """What is left."""

    def __init__(self, steps: int = STEPS, characters: int = CHARACTERS) -> None:
        self.steps = steps
        self.characters = characters
        self._allowed = (steps, characters)

    def grow(self, value: Any) -> None:
        """Allow for an input of the caller's, who may give as much as there is memory for."""
        unbounded = Budget(1 << 62, 1 << 62)
        unbounded.charge(value)
        self.steps += PER_INPUT * ((1 << 62) - unbounded.steps)
        self.characters += PER_INPUT * ((1 << 62) - unbounded.characters)
        self._allowed = (self.steps, self.characters)

    def spend(self, steps: int = 0, characters: int = 0) -> None:
        """Take from what is left.

        Raises:
            TemplateLimitError: there is not so much, or it would be more afterwards.
        """
        if steps < 0 or characters < 0:
            raise TemplateLimitError("it counts below nothing")
        self.steps -= steps
        self.characters -= characters
        if self.steps < 0:
            raise TemplateLimitError(f"it takes more than {self._allowed[0]:,} steps")
        if self.characters < 0:
            raise TemplateLimitError(f"it goes through more than {self._allowed[1]:,} characters")

    def charge(self, value: Any) -> None:
        """Spend the size of a value, with all that it holds, as often as it holds it."""
        if isinstance(value, str):
            self.spend(1, len(value))
            return
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                self.spend(1, len(item))
                continue
            self.spend(1)
            if isinstance(item, list | tuple | KeysView | ValuesView | ItemsView):
                self.spend(len(item) // 8)
                stack.extend(item)
            elif isinstance(item, Mapping):
                stack.extend(item.keys())
                stack.extend(item.values())
            elif isinstance(item, int):
                if item.bit_length() > LONGEST_NUMBER:
                    raise TemplateLimitError(f"it makes a number of more than {LONGEST_NUMBER:,} bits")
            elif isinstance(item, range):
                self.spend(len(item))
            elif isinstance(item, Namespace):
                stack.append(item._Namespace__attrs)  # its other attributes are the template's
