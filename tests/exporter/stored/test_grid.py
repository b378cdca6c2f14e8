"""Grids in the operators' formats: every number is the checkpoint's, and what they cannot hold is refused."""

import pytest
import torch
from intaglio.exporter.quantize.formats.blocks import BlockFormat
from intaglio.exporter.quantize.stored.grid import GridError, fit_grid
from intaglio.models.quantized.weights import BlockParameters
from intaglio.tests.exporter.stored.grids import KINDS, Grid, Kind, random_grid

SHAPES = [(5, 64), (3, 512), (4, 100), (1, 16), (2, 384)]


@pytest.mark.parametrize("five_bits", [False, True])
@pytest.mark.parametrize("looked_up", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_numbers(name: str, shape: tuple[int, int], looked_up: bool, five_bits: bool) -> None:
    grid = random_grid(KINDS[name], *shape, seed=len(name))
    fitted = fit_grid(grid, shape, looked_up=looked_up, five_bits=five_bits)
    expected = grid.values() if grid.order is None else grid.values()[:, grid.order]
    parts = [fitted.rows(range(start, min(start + 2, shape[0]))) for start in range(0, shape[0], 2)]
    found = torch.cat([part.dequantize() for part in parts])
    if KINDS[name].offsets == "any":
        assert (found - expected).abs().max() <= 2e-7 * expected.abs().max()
    else:
        assert torch.equal(found, expected)
    assert all(int(part.codes.max()) <= fitted.format.top for part in parts)
    five = five_bits and grid.bits == 5 and fitted.format.block_size >= 32
    assert fitted.format.bits == (4 if grid.bits <= 4 else 5 if five else 8)
    assert fitted.format.symmetric or (fitted.offsets is None and not looked_up)
    if looked_up:
        assert fitted.format.symmetric


@pytest.mark.parametrize(
    ("kind", "columns", "format", "scales", "offsets"),
    [
        (Kind(), 256, BlockFormat(4, 32, True), "float16", None),
        (Kind(zeros="any"), 256, BlockFormat(4, 32, False), "float16", None),
        (Kind(3, 64, zeros="any"), 256, BlockFormat(4, 64, True), "float16", None),
        (Kind(6, 16, scales="single"), 256, BlockFormat(8, 16, True), "float32", None),
        (Kind(8, zeros="any"), 256, BlockFormat(8, 32, False), "float16", None),
        (Kind(4, 512), 1024, BlockFormat(4, 128, True), "float16", None),
        (Kind(4, 256), 1024, BlockFormat(4, 256, True), "float16", None),
        (Kind(4, 96), 192, BlockFormat(4, 32, True), "float16", None),
        (Kind(8, 1 << 20), 1024, BlockFormat(8, 32, True), "float16", None),
        (Kind(4, 1 << 20), 1024, BlockFormat(4, 128, True), "float16", None),
        (Kind(4, 1 << 20), 96, BlockFormat(4, 32, True), "float16", None),
        (Kind(8, 1 << 20), 100, BlockFormat(8, 16, True), "float16", None),
        (Kind(zeros="least", offsets="multiples"), 256, BlockFormat(4, 32, False), "float16", None),
        (Kind(5, zeros="least", offsets="multiples"), 256, BlockFormat(8, 32, True), "float16", None),
        (Kind(zeros="least", offsets="any"), 256, BlockFormat(4, 32, True), "float16", "float32"),
    ],
    ids=str,
)
def test_formats(kind: Kind, columns: int, format: BlockFormat, scales: str, offsets: str | None) -> None:
    scheme = fit_grid(random_grid(kind, 4, columns, 1), (4, columns), looked_up=False).scheme(4)
    assert (scheme.format, scheme.scale_type, scheme.offset_type) == (format, scales, offsets)
    assert (scheme.method, scheme.accuracy_level) == ("stored", 4)


@pytest.mark.parametrize(
    ("kind", "columns", "format", "offsets"),
    [
        (Kind(5), 256, BlockFormat(5, 32, True), None),
        (Kind(5, zeros="any"), 256, BlockFormat(5, 32, False), None),
        (Kind(5, 16), 256, BlockFormat(8, 16, True), None),
        (Kind(5, 1 << 20), 1024, BlockFormat(5, 32, True), None),
        (Kind(5, 1 << 20), 100, BlockFormat(8, 16, True), None),
        (Kind(5, zeros="least", offsets="multiples"), 256, BlockFormat(5, 32, False), None),
        (Kind(5, zeros="least", offsets="any"), 256, BlockFormat(5, 32, True), "float32"),
        (Kind(6), 256, BlockFormat(8, 32, True), None),
    ],
    ids=str,
)
def test_codes_of_5_bits_stay_so_for_intaglios_kernels(
    kind: Kind, columns: int, format: BlockFormat, offsets: str | None
) -> None:
    grid = random_grid(kind, 4, columns, 1)
    scheme = fit_grid(grid, (4, columns), looked_up=False, five_bits=True).scheme(4)
    assert (scheme.format, scheme.scale_type, scheme.offset_type) == (format, "float16", offsets)


def test_an_offset_beyond_the_zero_points_stays_one() -> None:
    scales = torch.full((1, 1), 0.5)
    codes = torch.arange(16, dtype=torch.uint8).repeat(1, 2)
    for multiple, offsets in ((-15, False), (0, False), (1, True), (-16, True)):
        blocks = BlockParameters(scales, torch.zeros(1, 1, dtype=torch.uint8), scales * multiple)
        fitted = fit_grid(Grid(4, 32, codes, blocks), (1, 32), looked_up=False)
        assert (fitted.offsets is not None) == offsets
        assert torch.equal(fitted.rows(range(1)).dequantize(), 0.5 * (codes.float() + multiple))


def test_a_block_of_zeros_needs_no_zero_point() -> None:
    scales = torch.tensor([[0.0, 0.25]])
    points = torch.tensor([[3, 8]], dtype=torch.uint8)
    codes = torch.arange(32, dtype=torch.uint8)[None] % 16
    fitted = fit_grid(Grid(4, 16, codes, BlockParameters(scales, points)), (1, 32), looked_up=False)
    assert fitted.format.symmetric
    assert torch.equal(fitted.rows(range(1)).dequantize()[0, :16], torch.zeros(16))


def test_groups_that_no_block_divides() -> None:
    with pytest.raises(GridError, match=r"groups of 24, and ONNX Runtime's kernels take multiples of 16, 32"):
        fit_grid(random_grid(Kind(4, 24), 2, 96, 1), (2, 96), looked_up=False)
