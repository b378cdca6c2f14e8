"""Rows of a batch, and what a task does with them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast

from ...artifact import Task
from ...errors import InputError, PromptError, UsageError
from ...runtime.load import LoadOptions, Model, load

Row = dict[str, Any]
AnyModel = TypeVar("AnyModel", bound=Model)


class RowTask(ABC, Generic[AnyModel]):
    """A model that adds columns to rows.

    Args:
        artifact: a folder, which every machine has under this path, or a hub id.
        columns: the task's name of an input → the column that has it; by default the columns have these names.
        load_options: as those of ``intaglio.load``.
        options: as those of the model's call.

    Raises:
        UsageError: ``columns`` has an unknown name.
        InputError: as ``load``.
    """

    task: ClassVar[Task]
    inputs: ClassVar[tuple[str, ...]]
    results: ClassVar[tuple[str, ...]]
    kinds: ClassVar[tuple[type, ...]] = (str,)  # of an input

    def __init__(
        self,
        artifact: str,
        columns: Mapping[str, str] | None = None,
        load_options: LoadOptions | None = None,
        **options: Any,
    ) -> None:
        names = dict(columns or {})
        if unknown := set(names) - set(self.inputs):
            raise UsageError(
                f"{type(self).__name__} has no input {', '.join(sorted(unknown))}; it has {', '.join(self.inputs)}"
            )
        self.columns = {name: names.get(name, name) for name in self.inputs}
        self.options = options
        self.model = cast(AnyModel, load(artifact, task=self.task, **(load_options or {})))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Return a batch of Ray Data, columns with a value for each row, with the columns of the results."""
        names = list(batch)
        values = [plain(list(column)) for column in batch.values()]
        rows = self.rows([dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)])
        return {name: [row[name] for row in rows] for name in [*names, *self.results, "error"]}

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows with the columns of their results.

        Raises:
            UsageError: a column is missing, or has the name of a result; or an option is wrong.
        """
        for row in rows[:1]:
            if missing := [name for name in self.columns.values() if name not in row]:
                raise UsageError(
                    f"the rows have no column {missing[0]!r}; name the right ones with columns={{...}}: they have "
                    f"{', '.join(row)}"
                )
            if taken := [name for name in (*self.results, "error") if name in row]:
                raise UsageError(f"the rows have a column {taken[0]!r} already; rename it, since a result has its name")
        wrong = [self._wrong(row) for row in rows]
        usable = [row for row, error in zip(rows, wrong, strict=True) if error is None]
        given = [{name: row[column] for name, column in self.columns.items()} for row in usable]
        found = iter(self.run(given) if given else ())
        added = [next(found) if error is None else error for error in wrong]
        return [self._joined(row, result) for row, result in zip(rows, added, strict=True)]

    def _wrong(self, row: Row) -> PromptError | None:
        """Return why a row has no input that the task could take."""
        for column in self.columns.values():
            if not isinstance(row[column], self.kinds):
                kinds = " or ".join(kind.__name__ for kind in self.kinds)
                return PromptError(f"{column} is {type(row[column]).__name__}, not {kinds}")
        return None

    def _joined(self, row: Row, result: Row | InputError) -> Row:
        """Return a row with its results, or with its error."""
        if isinstance(result, InputError):
            return {**row, **dict.fromkeys(self.results), "error": str(result)}
        return {**row, **result, "error": None}

    @abstractmethod
    def run(self, inputs: Sequence[Row]) -> Sequence[Row | InputError]:
        """Return the results of rows that have the inputs under the task's names, or why there are none."""
        ...


def plain(value: Any) -> Any:
    """Return a value of Ray Data without numpy's types, which JSON and tokenizers do not take."""
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def each(function: Callable[[Sequence[Row]], Sequence[Row]], rows: Sequence[Row]) -> list[Row | InputError]:
    """Return the results of a function of rows; where a text is refused, they are taken one at a time."""
    try:
        return list(function(rows))
    except PromptError as error:
        if len(rows) == 1:
            return [error]
        return [result for row in rows for result in each(function, [row])]
