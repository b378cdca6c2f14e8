"""The output of a response while it grows: items, and the typed events that say how.

response.created, response.in_progress
    response.output_item.added
        response.content_part.added, …delta …, …done, response.content_part.done    reasoning, message
        response.function_call_arguments.delta …, …done                             function_call
    response.output_item.done
response.completed, or response.incomplete, or response.failed
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from ..answers import new_id

Event = dict[str, Any]
Logprobs = Sequence[dict[str, Any]]

IDS = {"reasoning": "rs_", "message": "msg_", "function_call": "fc_"}
"""How the ids of items begin."""


class Output:
    """The items of a response; each method takes what the model has written next and returns the events of it."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._open = False  # the last item is not complete

    def thought(self, text: str) -> list[Event]:
        """Add to the thought."""
        events = self._begin("reasoning", summary=[], content=[])
        if not self._item["content"]:
            events += self._begin_part({"type": "reasoning_text", "text": ""})
        self._part["text"] += text
        return [*events, self._of_part("response.reasoning_text.delta", delta=text)]

    def text(self, text: str, logprobs: Logprobs | None) -> list[Event]:
        """Add to the answer; ``logprobs`` is None where they are not wanted."""
        events = self._begin("message", role="assistant", content=[])
        if not self._item["content"]:
            part = {"type": "output_text", "text": "", "annotations": []}
            events += self._begin_part(part if logprobs is None else part | {"logprobs": []})
        self._part["text"] += text
        if logprobs is not None:
            self._part["logprobs"] += logprobs
        return [*events, self._of_part("response.output_text.delta", delta=text, logprobs=list(logprobs or []))]

    def call(self, call_id: str, name: str) -> list[Event]:
        """Begin a call."""
        events = self.close("completed")
        return events + self._begin("function_call", call_id=call_id, name=name, arguments="")

    def arguments(self, text: str) -> list[Event]:
        """Add to the arguments of the call."""
        self._item["arguments"] += text
        return [self._of_item("response.function_call_arguments.delta", delta=text)]

    def close(self, status: str) -> list[Event]:
        """End the open item, if there is one."""
        if not self._open:
            return []
        self._open = False
        item = self._item
        item["status"] = status
        events = []
        if item["type"] == "function_call":
            events = [self._of_item("response.function_call_arguments.done", arguments=item["arguments"])]
        elif item["content"]:
            part = self._part
            done = {"text": part["text"]}
            if part["type"] == "output_text":
                done["logprobs"] = part.get("logprobs", [])
            events = [
                self._of_part(f"response.{part['type']}.done", **done),
                self._of_part("response.content_part.done", part=deepcopy(part)),
            ]
        return [*events, self._changed("response.output_item.done")]

    @property
    def _item(self) -> dict[str, Any]:
        return self.items[-1]

    @property
    def _part(self) -> dict[str, Any]:
        part: dict[str, Any] = self._item["content"][-1]
        return part

    def _begin(self, kind: str, **values: Any) -> list[Event]:
        """Begin an item of a kind, unless the open one is of that kind."""
        if self._open and self._item["type"] == kind:
            return []
        events = self.close("completed")
        self.items.append({"id": new_id(IDS[kind]), "type": kind, "status": "in_progress", **values})
        self._open = True
        return [*events, self._changed("response.output_item.added")]

    def _begin_part(self, part: dict[str, Any]) -> list[Event]:
        self._item["content"].append(part)
        return [self._of_part("response.content_part.added", part=deepcopy(part))]

    def _changed(self, kind: str) -> Event:
        return {"type": kind, "output_index": len(self.items) - 1, "item": deepcopy(self._item)}

    def _of_item(self, kind: str, **values: Any) -> Event:
        return {"type": kind, "item_id": self._item["id"], "output_index": len(self.items) - 1, **values}

    def _of_part(self, kind: str, **values: Any) -> Event:
        return self._of_item(kind, content_index=0, **values)
