"""Random changes of a case: attributes, and the ranks, shapes, element types and values of inputs."""

from dataclasses import replace

import numpy as np

from .case import Array, Case, Value

MOST_ELEMENTS = 1 << 20  # of an input after a change
TYPES = (np.float32, np.float16, np.float64, np.int8, np.uint8, np.int32, np.int64, np.bool_)
INTEGERS = (0, -1, 1, 2, 3, 5, 16, 2**15, 2**30, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63), (2**64 + 2) // 3)
TEXTS = ("swiglu", "silu", "relu", "int", "fp4", "", "x" * 100)
NUMBERS = (0.0, -1.0, 1e38, 1e-40, float("nan"), float("inf"), -float("inf"))
MORE_ATTRIBUTES = (
    "rotary_interleaved",
    "softcap",
    "smooth_softmax",
    "causal",
    "qk_output",
    "kv_cache_bit_width",
    "sliding_window_cache",
    "gather_axis",
    "quantize_axis",
    "matrices",
    "swiglu",
    "epsilon",
    "accuracy_level",
    "N2",
    "swiglu_fusion",
    "swiglu_limit",
    "use_sparse_mixer",
    "weights_prepacked",
    "fc2_expert_weight_bits",
    "quant_type",
    "unknown",
)


def mutated(case: Case, random: np.random.Generator) -> Case:
    """Return a case with one to three changes."""
    for _ in range(int(random.choice([1, 1, 1, 2, 3]))):
        change = [_attribute, _attributes, _shape, _shape, _rank, _type, _values, _values, _inputs, _kind, _outputs]
        case = change[int(random.integers(len(change)))](case, random)
    return case


def _integer(random: np.random.Generator, before: int | float | str) -> int:
    """Return an integer near the one before, or far from it; it fits 64 bits."""
    if not isinstance(before, int) or random.random() < 0.5:
        return int(INTEGERS[int(random.integers(len(INTEGERS)))])
    near = (before + 1, before - 1, 2 * before, before // 2, before + 16, before + 2**32, -before)
    return min(near[int(random.integers(len(near)))], 2**63 - 1)


def _attribute(case: Case, random: np.random.Generator) -> Case:
    names = [*case.attributes, *case.attributes, MORE_ATTRIBUTES[int(random.integers(len(MORE_ATTRIBUTES)))]]
    name = names[int(random.integers(len(names)))]
    attributes = dict(case.attributes)
    before, way = attributes.get(name, 1), random.random()
    if way < 0.1:
        attributes.pop(name, None)
    elif isinstance(before, str) and way < 0.8:
        attributes[name] = TEXTS[int(random.integers(len(TEXTS)))]
    elif isinstance(before, float) != (way < 0.2):
        attributes[name] = NUMBERS[int(random.integers(len(NUMBERS)))]
    else:
        attributes[name] = _integer(random, before)
    return replace(case, attributes=attributes)


def _attributes(case: Case, random: np.random.Generator) -> Case:
    """Give two attributes the same value, as two numbers of heads."""
    names = list(case.attributes)
    value = _integer(random, 1)
    chosen = [names[int(random.integers(len(names)))] for _ in range(2)]
    if "num_heads" in names and random.random() < 0.7:
        chosen = ["num_heads", "kv_num_heads"]
    return replace(case, attributes={**case.attributes, **dict.fromkeys(chosen, value)})


def _changed(case: Case, index: int, array: Array) -> Case:
    value = case.inputs[index]
    if array.size > MOST_ELEMENTS or array.ndim > 12 or value is None:
        return case
    inputs = list(case.inputs)
    inputs[index] = replace(value, array=np.ascontiguousarray(array).reshape(array.shape))
    return replace(case, inputs=tuple(inputs))


def _chosen(case: Case, random: np.random.Generator) -> tuple[int, Array]:
    there = [(index, value.array) for index, value in enumerate(case.inputs) if value is not None]
    return there[int(random.integers(len(there)))] if there else (0, np.zeros(0))


def _resized(array: Array, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    if count > MOST_ELEMENTS:
        return array
    return np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)


def _shape(case: Case, random: np.random.Generator) -> Case:
    """Change one dimension of an input, or the same of two inputs of the same shape."""
    index, array = _chosen(case, random)
    if array.ndim == 0:
        return case
    axis = int(random.integers(array.ndim))
    size = array.shape[axis]
    sizes = (0, 1, size + 1, max(size - 1, 0), 2 * size, size // 2, size + 16)
    shape = (*array.shape[:axis], sizes[int(random.integers(len(sizes)))], *array.shape[axis + 1 :])
    for other, value in enumerate(case.inputs):
        alike = value is not None and value.array.shape == array.shape and random.random() < 0.5
        if value is not None and (other == index or alike):
            case = _changed(case, other, _resized(value.array, shape))
    return case


def _rank(case: Case, random: np.random.Generator) -> Case:
    """Give the same elements another shape."""
    index, array = _chosen(case, random)
    shape = array.shape
    shapes = [(-1,), (1, *shape), (*shape, 1), shape[::-1], (1,) * 8 + shape]
    if array.ndim > 1:
        shapes += [(shape[0] * shape[1], *shape[2:]), (*shape[:-2], shape[-1], shape[-2])]
    if array.size:
        shapes.append(())
    wanted = shapes[int(random.integers(len(shapes)))]
    return _changed(case, index, array.reshape(-1)[0].reshape(()) if wanted == () else array.reshape(wanted))


def _type(case: Case, random: np.random.Generator) -> Case:
    index, array = _chosen(case, random)
    with np.errstate(all="ignore"):
        return _changed(case, index, array.astype(TYPES[int(random.integers(len(TYPES)))]))


def _values(case: Case, random: np.random.Generator) -> Case:
    """Change elements: one, or all; of lengths and indices most of the time."""
    index, array = _chosen(case, random)
    integers = [at for at, value in enumerate(case.inputs) if value is not None and value.array.dtype.kind == "i"]
    if integers and random.random() < 0.6:
        index = integers[int(random.integers(len(integers)))]
        array = np.asarray(case.get(index))
    if array.size == 0 or array.dtype.kind == "b":
        return case
    made = array.copy().reshape(-1)
    place = slice(None) if random.random() < 0.3 else int(random.integers(made.size))
    if made.dtype.kind == "f":
        with np.errstate(all="ignore"):
            made[place] = np.float64(NUMBERS[int(random.integers(len(NUMBERS)))])
    else:
        limits = np.iinfo(made.dtype)
        near = int(made[0 if isinstance(place, slice) else place])
        chosen = (limits.min, limits.max, 0, -1, 1, near + 1, near - 1, near + 7, near + 2**20, -near)
        made[place] = int(np.clip(chosen[int(random.integers(len(chosen)))], limits.min, limits.max))
    return _changed(case, index, made.reshape(array.shape))


def _inputs(case: Case, random: np.random.Generator) -> Case:
    """Take an input away, or add a copy of another."""
    index, array = _chosen(case, random)
    inputs = list(case.inputs)
    if random.random() < 0.6:
        inputs[index] = None
    else:
        inputs[int(random.integers(len(inputs)))] = Value(array)
    return replace(case, inputs=tuple(inputs))


def _kind(case: Case, random: np.random.Generator) -> Case:
    """Feed what is stored, or store what is fed, at any offset of a file."""
    index, _ = _chosen(case, random)
    value = case.inputs[index] if case.inputs else None
    if value is None:
        return case
    inputs = list(case.inputs)
    offset = int(random.integers(64)) if value.array.size else None
    inputs[index] = replace(value, stored=not value.stored, offset=None if value.stored else offset)
    return replace(case, inputs=tuple(inputs))


def _outputs(case: Case, random: np.random.Generator) -> Case:
    index = int(random.integers(len(case.outputs)))
    given = [there != (at == index) for at, there in enumerate(case.outputs)]
    return replace(case, outputs=tuple(given)) if any(given) else case
