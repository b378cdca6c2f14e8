"""The parameters of a native module and the tensors of a source: which belongs to which, and whether they fit."""

import torch
from torch import nn

from ...artifact import Task
from ...errors import CheckpointError, UnsupportedError
from ..dtypes import SAFETENSORS_DTYPES
from ..heads import CausalLM, build, trunk, trunk_path
from ..rope import RotaryEmbedding
from ..weight_source import CHUNK_BYTES, LM_HEAD, WeightSource

VALUE_HEAD = "v_head."


def stored_name(source: WeightSource, parameter: str, task: Task) -> str:
    """Return the source's name of a parameter of ``build(config, task)``, whatever prefix its trunk has."""
    own = trunk_path(task)
    if not parameter.startswith(own):
        return parameter  # the head's
    return source.trunk_prefix + parameter.removeprefix(own)


def check_parameters(source: WeightSource, task: Task, module: nn.Module) -> None:
    """Check that the source has the tensors that ``module``, made by ``build(config, task)``, needs.

    Raises:
        CheckpointError: tensors are missing, surplus, of another shape, or tied in the config and different on disk.
        UnsupportedError: a tensor is not of a float type.
    """
    wanted = {stored_name(source, name, task): tuple(p.shape) for name, p in module.state_dict().items()}
    tied = source.config.tie_word_embeddings and LM_HEAD in wanted
    if tied and LM_HEAD not in source.tensors:
        del wanted[LM_HEAD]  # the embedding is used in its place
    missing = [name for name in wanted if name not in source.tensors]
    if missing:
        count = "1 tensor is missing" if len(missing) == 1 else f"{len(missing)} tensors are missing"
        raise CheckpointError(
            f"{source.folder}: {count}, first {missing[0]}, which {task} with this "
            f"config.json needs; {_remedy(source, missing[0], task)}"
        )
    for name, shape in wanted.items():
        info = source.tensors[name]
        if info.shape != shape:
            raise CheckpointError(
                f"{info.file}: tensor {name} has shape {info.shape}, expected {shape} from config.json; "
                "the config and the weights belong to different models"
            )
        if info.dtype not in SAFETENSORS_DTYPES:
            raise UnsupportedError(
                f"{info.file}: tensor {name} has dtype {info.dtype}; supported are {', '.join(SAFETENSORS_DTYPES)}: "
                "use the checkpoint before it was quantized"
            )
    surplus = [name for name in source.tensors if name not in wanted and not _ignorable(source, name, task)]
    if surplus and not source.config.attention_bias and surplus[0].endswith("_proj.bias"):
        raise CheckpointError(
            f"{source.tensors[surplus[0]].file}: {surplus[0]} is a bias, and config.json has attention_bias = false; "
            "remove the key if the biases count, as transformers does, or the tensors if they do not"
        )
    if surplus:
        raise CheckpointError(
            f"{source.tensors[surplus[0]].file}: {task} with this config.json has no place for {len(surplus)} of its "
            f"tensors, first {surplus[0]}; the config and the weights belong to different models"
        )
    if tied and LM_HEAD in wanted:
        _check_tied(source)


def load_module(source: WeightSource, task: Task | None = None, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the native module of a task with all of its weights in memory; the exporter never needs it.

    Raises:
        CheckpointError, UnsupportedError: as ``check_parameters``.
    """
    task = task or source.task
    config = source.config
    with torch.device("meta"):
        module = build(config, task)
    check_parameters(source, task, module)
    own = [name for name in module.state_dict() if not (config.tie_word_embeddings and "lm_head" in name)]
    state = {name: source.tensor(stored_name(source, name, task)).to(dtype) for name in own}
    module.load_state_dict(state, strict=False, assign=True)
    # The rotary embedding has no weights: it is computed, not loaded.
    trunk(module).rotary_emb = RotaryEmbedding(config.rope, config.head_dim)
    if isinstance(module, CausalLM) and config.tie_word_embeddings:
        module.lm_head.weight = module.trunk.embed_tokens.weight
    return module.eval()


def note_on_left_out(source: WeightSource, task: Task) -> str | None:
    """Return which tensors of other heads the source holds unasked, as a sentence; None where there are none."""
    names = [name for name in source.tensors if _left_over(source, name, task)]
    if not names:
        return None
    count = f"{len(names)} tensors are" if len(names) > 1 else "1 tensor is"
    return f"{count} left out, which {task} does not read: {', '.join(names[:4])}"


def _ignorable(source: WeightSource, name: str, task: Task) -> bool:
    """Return true for a tensor that the task does not read and that checkpoints nevertheless hold."""
    if name.endswith("rotary_emb.inv_freq"):  # older checkpoints stored what the config says
        return True
    if name == LM_HEAD and (source.config.tie_word_embeddings or source.task == "text-generation" != task):
        return True
    heads = ("score.weight", "score.bias", "qa_outputs.weight", "qa_outputs.bias")
    # another head, left out on request
    return (task != source.task and name in heads) or _left_over(source, name, task)


def _left_over(source: WeightSource, name: str, task: Task) -> bool:
    """Return true for a tensor of training: the LM head under another task's architecture, the value head of PPO."""
    if name == LM_HEAD:
        return not (task == "text-generation" or source.task == "text-generation" or source.config.tie_word_embeddings)
    return name.startswith(VALUE_HEAD)


def _check_tied(source: WeightSource) -> None:
    """Check that the head has the values of the embedding, in whichever dtype."""
    embedding = source.trunk_prefix + "embed_tokens.weight"
    head = source.tensors[LM_HEAD]
    sizes = [SAFETENSORS_DTYPES[source.tensors[name].dtype].itemsize for name in (embedding, LM_HEAD)]
    row_elements = max(1, head.shape[1])
    rows = max(1, CHUNK_BYTES // (row_elements * max(sizes)))  # of both at once
    chunks = [rows * row_elements * size for size in sizes]
    same = all(
        torch.equal(ours.double(), theirs.double())
        for (_, ours), (_, theirs) in zip(
            source.rows(embedding, chunks[0]), source.rows(LM_HEAD, chunks[1]), strict=True
        )
    )
    if not same:
        raise CheckpointError(
            f"{head.file}: lm_head.weight differs from {embedding}, although config.json has "
            "tie_word_embeddings = true; set it to false if the head has weights of its own"
        )


def _remedy(source: WeightSource, name: str, task: Task) -> str:
    if name == LM_HEAD and source.trunk_prefix == "":
        return "the tensors are those of a bare model: give --task feature-extraction if it makes embeddings"
    if name == LM_HEAD:
        return (
            "give --task feature-extraction if the model makes embeddings, or set tie_word_embeddings to true if the "
            "head is the embedding"
        )
    if task != source.task:
        return f"the checkpoint is for {source.task}: leave out --task, or give one with this head"
    return "the config and the weights belong to different models, or a file is incomplete"
