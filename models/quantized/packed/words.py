"""Codes of 2 to 8 bits packed into int32 words, as GPTQ and AWQ store them.

The codes are a stream of bits, least significant bit first: code i of a column takes the bits ``i * bits`` to
``(i + 1) * bits``. Where 32 is not a multiple of ``bits``, a code may begin in one word and end in the next. After
``period(bits)`` codes, the next one begins with a word again.
"""

import math

import torch
from torch import Tensor

WORD = 32
AWQ_COLUMNS = (0, 4, 1, 5, 2, 6, 3, 7)
"""The position in an AWQ word of 8 codes that holds each of its 8 columns."""


def period(bits: int) -> int:
    """Return the number of codes after which the next code begins with a word."""
    return WORD // math.gcd(WORD, bits)


def words_of(codes: range, bits: int) -> tuple[range, int]:
    """Return the words that hold some codes, whole periods of them, and the first code in them."""
    codes_each = period(bits)
    words_each = codes_each * bits // WORD
    first, last = codes.start // codes_each, -(-codes.stop // codes_each)
    return range(first * words_each, last * words_each), first * codes_each


def unpack(words: Tensor, bits: int, interleaved: bool = False) -> Tensor:
    """Return the codes of words.

    Args:
        words: int32 [W, n], whole periods of words in each column.
        bits: of a code.
        interleaved: the 8 codes of 4 bits of a word are in AWQ's order.

    Returns:
        uint8 [W * 32 / bits, n].
    """
    codes_each = period(bits)
    words_each = codes_each * bits // WORD
    mask = (1 << bits) - 1
    split = words.reshape(-1, words_each, words.shape[1])
    codes = torch.empty((split.shape[0], codes_each, words.shape[1]), dtype=torch.uint8)
    for index in range(codes_each):
        word, shift = divmod(index * bits, WORD)
        code = split[:, word] >> shift  # its sign fills the bits above, which the mask takes away or the next word has
        if shift + bits > WORD:
            held = WORD - shift
            code = (code & ((1 << held) - 1)) | (split[:, word + 1] << held)
        codes[:, index] = (code & mask).to(torch.uint8)
    if interleaved:
        codes = codes[:, AWQ_COLUMNS]
    return codes.reshape(-1, words.shape[1])
