"""The weights of a base with adapters merged into them: which tensors change, and what config.json says afterwards.

Several adapters are merged one after the other, as peft's ``merge_and_unload`` of several active adapters does, each
scaled by its weight: the sum of their changes. That is the exact sum, which ``add_weighted_adapter`` calls "cat".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...artifact import Task
from ...errors import CheckpointError, UnsupportedError
from ..storage.store import TensorStore
from ..weight_source import LM_HEAD, TensorInfo
from .change import Change, Magnitude, OfBase, OfStored, Scale, WithRows
from .given import AdapterFolder
from .names import BIAS, HEADS
from .parts import REPLACED, Parts, check_saved, check_targets, read_parts, task_of
from .terms import Hadamard, Kronecker, LowRank, Stored
from .tied import settle_tied

EMBEDDING = "embed_tokens"
HEAD = "lm_head"


@dataclass(frozen=True)
class Base:
    """What adapters are merged into.

    Args:
        store: its tensors.
        trunk: the prefix of the trunk's tensors, as ``find_trunk`` returns it.
        tied: the LM head is the embedding.
    """

    store: TensorStore
    trunk: str
    task: Task
    tied: bool

    def weight(self, module: str) -> str:
        """Return the name of a module's weight."""
        return f"{module if module in HEADS else self.trunk + module}.weight"

    @property
    def matrices(self) -> list[str]:
        """The modules with a matrix, by their paths in the trunk, or the head's names."""
        suffix = ".weight"
        found = []
        for name, info in self.store.tensors.items():
            module = name.removesuffix(suffix)
            if name.endswith(suffix) and len(info.shape) == 2:
                found.append(module if module in HEADS else module.removeprefix(self.trunk))
        if self.tied and HEAD not in found:
            found.append(HEAD)
        return found


@dataclass(frozen=True)
class Merge:
    """The changes by tensor name, tensors that the model has no more, its task, and sentences on how it was read."""

    changes: Mapping[str, Change]
    dropped: frozenset[str]
    task: Task
    tied: bool
    parts: tuple[Parts, ...]
    notes: tuple[str, ...]


def merge(base: Base, adapters: Sequence[AdapterFolder]) -> Merge:
    """Read the headers of the adapters, and return what they change.

    Raises:
        CheckpointError: an adapter is damaged, or does not fit the base.
        UnsupportedError: an adapter cannot be merged, or not with the others.
    """
    changes: dict[str, Change] = {}
    notes: list[str] = []
    opened = [read_parts(adapter) for adapter in adapters]
    tasks: list[Task] = sorted({task_of(parts, base.task) for parts in opened})
    if len(tasks) > 1:
        raise UnsupportedError(
            f"the adapters are for different tasks ({', '.join(tasks)}) and cannot be merged into one model; merge "
            "those of one task"
        )
    task = tasks[0]
    for parts in opened:
        matrices = [
            module for module in base.matrices if module not in HEADS or (module == HEAD) == (task == "text-generation")
        ]
        check_targets(parts, matrices)
        check_saved(parts, matrices)
        _Merger(base, parts, changes, notes).run()
        notes += parts.config.notes
    tied, dropped = base.tied, frozenset[str]()
    if base.tied and task == "text-generation":
        tied, dropped, note = settle_tied(base.store, base.weight(EMBEDDING), changes, opened)
        notes += [note] if note else []
    elif task == "text-generation":
        _check_vocabulary(base, changes)
    return Merge(changes, dropped, task, tied, tuple(opened), tuple(notes))


def _check_vocabulary(base: Base, changes: Mapping[str, Change]) -> None:
    """Check that the embedding and the LM head have as many rows as each other."""
    tensors = {name: info.shape for name, info in base.store.tensors.items()}
    tensors |= {name: one.info.shape for name, one in changes.items()}
    embedding, head = tensors.get(base.weight(EMBEDDING)), tensors.get(LM_HEAD)
    changed = changes.keys() & {base.weight(EMBEDDING), LM_HEAD}
    if changed and embedding and head and embedding[0] != head[0]:
        raise CheckpointError(
            f"{' and '.join(changes[min(changed)].by)}: the embedding has {embedding[0]:,} rows with the adapter, and "
            f"the LM head {head[0]:,}; the adapter is not whole: fetch it again"
        )


class _Merger:
    """Adds the changes of one adapter."""

    def __init__(self, base: Base, parts: Parts, changes: dict[str, Change], notes: list[str]) -> None:
        self.base = base
        self.parts = parts
        self.config = parts.config
        self.weight = parts.adapter.weight
        self.changes = changes
        self.notes = notes
        self.whole: list[str] = []
        self.before = dict(changes)
        """The changes of the adapters before this one."""

    def run(self) -> None:
        methods: dict[str, Callable[[str, dict[str, Stored]], None]] = {
            "LORA": self._lora,
            "LOHA": self._loha,
            "LOKR": self._lokr,
            "IA3": self._ia3,
        }
        for module, found in self.parts.modules.items():
            rest = dict(found)
            for part in REPLACED:
                if part in rest:
                    self._replace(module, part, rest.pop(part))
            if "trainable_tokens_delta" in rest:
                self._rows(module, rest.pop("trainable_tokens_delta"))
            if rest:
                methods[self.config.method](module, rest)
            if rest:
                raise CheckpointError(
                    f"{next(iter(rest.values())).file}: {module} has {', '.join(sorted(rest))}, which an adapter of "
                    f"the method {self.config.method} with this {self.config.where} has not; the two files belong to "
                    "different adapters"
                )
        if self.whole and self.weight != 1:
            self.notes.append(
                f"the weight {self.weight:g} of the adapter {self.parts.label} does not apply to the tensors that it "
                f"brings whole: {', '.join(self.whole[:4])}"
            )

    def _change(self, name: str) -> Change:
        """Return the change of a tensor of the base, or of one that came whole."""
        change = self.changes.get(name)
        if change is None:
            origin = name
            if name == LM_HEAD and name not in self.base.store.tensors and self.base.tied:
                origin = self.base.weight(EMBEDDING)
            info = self.base.store.tensors.get(origin)
            if info is None:
                raise CheckpointError(
                    f"{self.parts.label} changes {name}, which the base does not have; the adapter was trained on "
                    "another model"
                )
            change = self.changes[name] = Change(name, info, OfBase(self.base.store, origin))
        if self.parts.label not in change.by:
            change.by.append(self.parts.label)
        return change

    def _computed(self, name: str) -> Change:
        """Return a change that more is added to: its numbers are float32."""
        change = self._change(name)
        if change.magnitude is not None or change.scale is not None:
            raise UnsupportedError(
                f"{self.parts.label} and {change.by[0]} both change {name}, one of them by DoRA or IA3, whose result "
                "depends on the other; merge one of them"
            )
        change.info = replace(change.info, dtype="F32")
        return change

    def _matrix(self, module: str) -> tuple[Change, tuple[int, int]]:
        change = self._computed(self.base.weight(module))
        if len(change.info.shape) != 2:
            raise CheckpointError(f"{self.parts.label}: {module} is no matrix, and the adapter has a product for it")
        return change, (change.info.shape[0], change.info.shape[1])

    def _replace(self, module: str, part: str, stored: Stored) -> None:
        name = f"{self.base.weight(module).removesuffix('weight')}{part}"
        known = self.base.store.tensors.get(name)
        if name == LM_HEAD and known is None and self.base.tied:
            known = self.base.store.tensors.get(self.base.weight(EMBEDDING))
        if known is None and module not in HEADS:
            raise CheckpointError(
                f"{stored.file}: tensor {stored.name} takes the place of {name}, which the base does not have; the "
                "adapter was trained on another model"
            )
        if known is not None and known.shape != stored.shape:
            # a vocabulary that was resized, or another number of labels
            free = module in (EMBEDDING, *HEADS)
            if not free or len(known.shape) != len(stored.shape) or known.shape[1:] != stored.shape[1:]:
                raise self._misfit(stored, name, known.shape)
        if name in self.before and isinstance(self.before[name].origin, OfStored):
            raise UnsupportedError(
                f"{self.parts.label} and {self.before[name].by[0]} both bring {name} whole; merge one of them"
            )
        if self.before.get(name) is not None and self.before[name].info.shape != stored.shape:
            raise self._misfit(stored, name, self.before[name].info.shape)
        info = TensorInfo(stored.file, stored.dtype, stored.shape)
        change = self.changes.get(name)
        if change is None:
            change = self.changes[name] = Change(name, info, OfStored(stored), by=[self.parts.label])
        else:
            change.origin = OfStored(stored)
            change.info = replace(info, dtype="F32") if change.computes else info
            change.by.append(self.parts.label)
        self.whole.append(name)

    def _rows(self, module: str, stored: Stored) -> None:
        indices = self.config.token_indices.get(module)
        change = self._change(self.base.weight(module))
        shape = change.info.shape
        if indices is None or module not in (EMBEDDING, HEAD):
            raise CheckpointError(
                f"{stored.file}: {stored.name} has rows of {module}, and trainable_token_indices in "
                f"{self.config.where} does not say which; fetch the adapter again"
            )
        if stored.shape != (len(indices), *shape[1:]):
            raise self._misfit(stored, f"{len(indices)} rows of {change.name}", (len(indices), *shape[1:]))
        if indices and max(indices) >= shape[0]:
            raise CheckpointError(
                f"{self.config.where}: trainable_token_indices names the token {max(indices):,}, and {change.name} has "
                f"{shape[0]:,} rows; the adapter was trained on another model"
            )
        change.origin = WithRows(change.origin, indices, stored)
        change.info = replace(change.info, dtype="F32")
        self.whole.append(f"{len(indices)} rows of {change.name}")

    def _lora(self, module: str, rest: dict[str, Stored]) -> None:
        change, (height, width) = self._matrix(module)
        embeds = module == EMBEDDING
        names = ("lora_embedding_A", "lora_embedding_B") if embeds else ("lora_A", "lora_B")
        first, second = (self._taken(module, rest, name) for name in names)
        rank = self.config.rank_of(self.parts.key(module))
        inputs, outputs = (height, width) if embeds else (width, height)
        self._check(first, f"{names[0]} of {module} at rank {rank}", (rank, inputs))
        self._check(second, f"{names[1]} of {module} at rank {rank}", (outputs, rank))
        scale = self.config.scaling(self.parts.key(module), rank) * self.weight
        if embeds:
            left, right = replace(first, transposed=True), replace(second, transposed=True)
        else:
            left, right = second, first
        change.terms.append(LowRank(left, right, scale, (height, width)))
        if self.config.dora:
            magnitude = self._taken(module, rest, "lora_magnitude_vector")
            self._check(magnitude, f"the magnitudes of {module}", (outputs,))
            self._alone(change, "DoRA")
            change.magnitude = Magnitude(magnitude, columns=embeds)
        if self.config.lora_bias and not embeds:
            bias = self._taken(module, rest, BIAS)
            self._check(bias, f"the bias of {module}", (outputs,))
            name = change.name.removesuffix("weight") + "bias"
            if name not in self.base.store.tensors and name not in self.changes:
                raise UnsupportedError(
                    f"{self.parts.label} adds a bias to {module} (lora_bias), which has none in this base; peft does "
                    "not merge it either"
                )
            self._computed(name).vectors.append((bias, scale))

    def _loha(self, module: str, rest: dict[str, Stored]) -> None:
        change, shape = self._matrix(module)
        rank = self.config.rank_of(self.parts.key(module))
        pairs = []
        for number in (1, 2):
            left = self._taken(module, rest, f"hada_w{number}_a")
            right = self._taken(module, rest, f"hada_w{number}_b")
            self._check(left, f"hada_w{number}_a of {module} at rank {rank}", (shape[0], rank))
            self._check(right, f"hada_w{number}_b of {module} at rank {rank}", (rank, shape[1]))
            pairs.append((left, right))
        scale = self.config.scaling(self.parts.key(module), rank) * self.weight
        change.terms.append(Hadamard((pairs[0], pairs[1]), scale, shape))

    def _lokr(self, module: str, rest: dict[str, Stored]) -> None:
        change, shape = self._matrix(module)
        rank = self.config.rank_of(self.parts.key(module))
        factors: list[tuple[Stored, ...]] = []
        for number in (1, 2):
            name = f"lokr_w{number}"
            if name in rest:
                factors.append((self._taken(module, rest, name),))
            else:
                factors.append(tuple(self._taken(module, rest, f"{name}_{end}") for end in "ab"))
        sizes = []
        for factor in factors:
            if any(len(one.shape) != 2 for one in factor) or (
                len(factor) == 2 and not factor[0].shape[1] == factor[1].shape[0] == rank
            ):
                raise self._misfit(factor[0], f"a factor of {module} at rank {rank}", (factor[0].shape[0], rank))
            sizes.append((factor[0].shape[0], factor[-1].shape[1]))
        made = (sizes[0][0] * sizes[1][0], sizes[0][1] * sizes[1][1])
        if made != shape:
            raise self._misfit(factors[0][0], f"a Kronecker product for {change.name}, where it makes {made},", shape)
        scale = self.config.scaling(self.parts.key(module), rank) * self.weight
        change.terms.append(Kronecker(factors[0], factors[1], scale))

    def _ia3(self, module: str, rest: dict[str, Stored]) -> None:
        change, (height, width) = self._matrix(module)
        factors = self._taken(module, rest, "ia3_l")
        forward = self.parts.key(module) in self.config.feedforward
        self._check(factors, f"ia3_l of {module}", (1, width) if forward else (height, 1))
        self._alone(change, "IA3")
        change.scale = Scale(factors, columns=forward)
        name = change.name.removesuffix("weight") + "bias"
        if not forward and name in self.base.store.tensors:
            bias = self._computed(name)
            self._alone(bias, "IA3")
            bias.scale = Scale(factors, columns=False)

    def _alone(self, change: Change, method: str) -> None:
        """Check that an adapter whose change is no sum is the only one of its weight, and whole."""
        if self.weight != 1:
            raise UnsupportedError(
                f"{self.parts.label} is {method} and has the weight {self.weight:g}: its change is no sum that a "
                "weight could scale; give it without a weight"
            )
        if len(change.by) > 1:
            raise UnsupportedError(
                f"{change.by[0]} and {self.parts.label} both change {change.name}, the second by {method}, whose "
                "result depends on the other; merge one of them"
            )

    def _taken(self, module: str, rest: dict[str, Stored], part: str) -> Stored:
        if part not in rest:
            raise CheckpointError(
                f"{self.parts.label}: {module} has no {part}; the adapter is not whole: fetch it again"
            )
        return rest.pop(part)

    def _check(self, stored: Stored, what: str, shape: tuple[int, ...]) -> None:
        if stored.shape != shape:
            raise self._misfit(stored, what, shape)

    def _misfit(self, stored: Stored, what: str, shape: tuple[int, ...]) -> CheckpointError:
        return CheckpointError(
            f"{stored.file}: tensor {stored.name[:200]} has the shape {stored.shape}, and {what} needs {shape}; the "
            "adapter belongs to another base, or its config to another adapter"
        )
