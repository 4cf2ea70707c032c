"""How often the tiles of `kernels/attention` make a warp's threads wait for one bank of shared memory: counted.

Where numbers stand is asked of the kernels' own function, in the simulator; which lanes meet is the hardware's: 32
banks of 4 bytes, lanes in groups that read or write 128 bytes together, one pass a group unless two lanes want
different words of one bank.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

import cuframe as cf
from tests.kernels import fetch
from tests.sim_helpers import needs_compiler

pytestmark = needs_compiler

SOURCE = """
#include "common/platform.cuh"
#include "attention/fragments.cuh"

template <class T, int D> __global__ void places(int32* out, const T*) {
    for (int i = threadIdx.x; i < 64 * D / CHUNK<T>; i += blockDim.x)
        out[i] = place<D, T>(i / (D / CHUNK<T>), i % (D / CHUNK<T>)) * int(sizeof(T));
}
"""


def places(dtype: str, width: int) -> np.ndarray:
    """The byte at which each chunk of each row begins."""
    kernel = cf.cuda.kernel(SOURCE, "places", ("int32* out", "const T* x"), types={"T": ("float32", "float16")},
                            constants={"D": (64, 128, 256)})
    x = cf.zeros(1, dtype=getattr(cf, dtype), device="sim")
    chunks = width * x.array.itemsize // 16
    out = cf.zeros(64, chunks, dtype=cf.int32, device="sim")
    kernel(1, 32, out.array, x.array, D=width)
    return fetch(out.array)


def passes(groups: Iterable[Iterable[int]]) -> list[int]:
    """For each group of lanes, given by the words that they want: the most different words of one bank."""
    return [max(len({w for w in words if w % 32 == bank}) for bank in range(32)) for words in map(set, groups)]


def words(byte: int, count: int) -> list[int]:
    return [byte // 4 + i for i in range(count)]


@pytest.mark.parametrize("dtype, width", [("float16", 64), ("float16", 128), ("float16", 256), ("float32", 64),
                                          ("float32", 128)])
def test_no_bank_is_waited_for(dtype: str, width: int) -> None:
    at = places(dtype, width)
    rows, chunks = at.shape
    assert len(set(at.ravel())) == at.size and (at % 16 == 0).all()
    # ldmatrix, of both kinds: eight rows at one chunk
    matrices = [[w for r in range(8) for w in words(at[first + r, c], 4)]
                for first in range(0, rows, 8) for c in range(chunks)]
    # 16-byte stores and loads: eight threads with eight chunks of a row
    lines = [[w for c in range(8) for w in words(at[r, first + c], 4)]
             for r in range(rows) for first in range(0, chunks, 8)]
    assert set(passes(matrices)) == set(passes(lines)) == {1}
    if dtype == "float32":
        # right factors of weights: keys 2t and 2t + 1, columns 8j + g
        factors = [[at[n + 2 * t + odd, (8 * j + g) // 4] // 4 + (8 * j + g) % 4 for t in range(4) for g in range(8)]
                   for n in range(0, rows, 8) for odd in (0, 1) for j in range(width // 8)]
        assert set(passes(factors)) == {1}


@pytest.mark.parametrize("dtype, most", [("float16", 1), ("float32", 2)])
def test_results_on_their_way_out(dtype: str, most: int) -> None:
    """Once a block: two numbers of each lane, of fp16 all lanes together, of floats half of them."""
    at = places(dtype, 64)
    size = 16 // (4 if dtype == "float32" else 8)
    groups = []
    for j in range(8):
        pairs = [words(at[g, (8 * j + 2 * t) * size // 16] + (8 * j + 2 * t) * size % 16, size // 2)
                 for g in range(8) for t in range(4)]
        step = 128 // (2 * size)
        groups += [[w for pair in pairs[i:i + step] for w in pair] for i in range(0, 32, step)]
    assert max(passes(groups)) == most
