"""The budget of one rendering of a chat template: steps, and characters that it reads or writes.

A template is a program by the publisher of the checkpoint, who is not trusted. All work that repeats or grows is
charged before it is done, so the budget bounds both time and memory of any template.
"""

from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from contextvars import ContextVar
from typing import Any

from jinja2.utils import Namespace

STEPS = 1_000_000
CHARACTERS = 32_000_000
PER_INPUT = 64  # additional steps and characters for each item and character of the messages and tools
LONGEST_NUMBER = 4096  # bits

current: ContextVar["Budget"] = ContextVar("current")


class TemplateLimitError(Exception):
    """A template exceeds a limit of the sandbox."""


class Budget:
    """The steps and characters that are left."""

    def __init__(self, steps: int = STEPS, characters: int = CHARACTERS) -> None:
        self.steps = steps
        self.characters = characters
        self._allowed = (steps, characters)

    def grow(self, value: Any) -> None:
        """Raise the budget in proportion to an input of the caller, whose size is not limited."""
        unbounded = Budget(1 << 62, 1 << 62)
        unbounded.charge(value)
        self.steps += PER_INPUT * ((1 << 62) - unbounded.steps)
        self.characters += PER_INPUT * ((1 << 62) - unbounded.characters)
        self._allowed = (self.steps, self.characters)

    def spend(self, steps: int = 0, characters: int = 0) -> None:
        """Subtract from the budget.

        Raises:
            TemplateLimitError: the budget is exceeded, or an amount is negative.
        """
        if steps < 0 or characters < 0:
            raise TemplateLimitError("it charges a negative amount")
        self.steps -= steps
        self.characters -= characters
        if self.steps < 0:
            raise TemplateLimitError(f"it takes more than {self._allowed[0]:,} steps")
        if self.characters < 0:
            raise TemplateLimitError(f"it processes more than {self._allowed[1]:,} characters")

    def charge(self, value: Any) -> None:
        """Subtract the size of a value and of everything in it, once for each reference."""
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
                    raise TemplateLimitError(f"it computes a number of more than {LONGEST_NUMBER:,} bits")
            elif isinstance(item, range):
                self.spend(len(item))
            elif isinstance(item, Namespace):
                stack.append(item._Namespace__attrs)  # any other attribute access reads the template's values
