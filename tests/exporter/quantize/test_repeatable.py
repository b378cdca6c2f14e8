"""The bytes of an artifact do not depend on the number of threads."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.exporter.quantize.fixed_order import elementwise, factor, total
from intaglio.exporter.quantize.formats.blocks import BlockFormat
from intaglio.exporter.quantize.layers.hessian import Moments
from intaglio.exporter.quantize.methods.gptq import Hessian, gptq
from intaglio.tests.files.artifact_files import contents
from torch import Tensor

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
THREADS = (1, 2, 3, 5, 8)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gram(width: int) -> Tensor:
    rows = random(2 * width, width)
    return rows.t() @ rows / len(rows)


def correction() -> Tensor:
    moments = Moments(700, 350)
    moments.add(random(900, 700), random(900, 350, seed=1))
    moments.complete()
    return moments.correction()


def gradient() -> Tensor:
    values = random(511, 701).requires_grad_()
    torch.autograd.backward(elementwise(torch.nn.functional.silu)(values), random(511, 701, seed=1))
    assert values.grad is not None
    return values.grad


@pytest.mark.parametrize(
    "compute",
    [
        lambda: torch.tensor(total(random(901, 701))),
        lambda: factor(gram(700)),
        correction,
        lambda: elementwise(torch.nn.functional.silu)(random(511, 701)),
        gradient,
        lambda: gptq(random(901, 700, seed=1), BlockFormat(4, 32, True), Hessian.of(gram(700), 900)).codes,
        lambda: torch.tensor(Hessian.of(gram(700), 900).output_error(random(901, 700, seed=1))),
    ],
    ids=["sum", "factor", "correction", "activation", "gradient", "gptq", "error"],
)
def test_numbers(compute: Callable[[], Tensor]) -> None:
    found = []
    for count in THREADS:
        torch.set_num_threads(count)
        found.append(compute())
        assert torch.get_num_threads() == count
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize(
    "name", ["tiny-qwen2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("tiny-exaone4", "tiny-qwen2-moe"))]
)
def test_artifacts(name: str, tmp_path: Path) -> None:
    for count in (1, 3):
        torch.set_num_threads(count)
        quantize(CHECKPOINTS / name, tmp_path / str(count), options=QuantizeOptions(windows=4))
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
