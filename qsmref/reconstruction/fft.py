"""Real float32 FFTs on padded grids that skip the lines of zeros.

All transforms of the package go through :meth:`Transform.forward` and :meth:`Transform.inverse`,
so the library behind them (scipy, or pyfftw where it is installed) is chosen here and only here.

A zero-padded array of shape ``shape`` on a grid ``grid`` has mostly empty lines. Transforming axis
by axis, each axis padded only when its turn comes, touches about half of the lines of a twofold
padded 3-D transform and gives the same result; the inverse crops axis by axis likewise. Where there
are few empty lines, padding at once costs less than the copies between the axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import scipy.fft

#: Part of the grid's lines that an array fills, from which on the forward transform pads at once.
#: Measured: even at about this part, on grids of 2 and 28 million voxels.
_FULL = 0.6

_threads: ContextVar[int] = ContextVar("qsmref_fft_threads", default=1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use `count` threads for the transforms (and numba kernels) inside the block."""
    if count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    token = _threads.set(int(count))
    try:
        yield
    finally:
        _threads.reset(token)


def thread_count() -> int:
    """Number of threads that transforms and kernels use now."""
    return _threads.get()


def _library():
    try:
        from pyfftw.interfaces import cache, scipy_fft
    except ImportError:
        return scipy.fft
    cache.enable()
    cache.set_keepalive_time(60)
    return scipy_fft


_fft = _library()


def library_name() -> str:
    """Name of the FFT library in use, for the sidecars and the benchmarks."""
    return "scipy" if _fft is scipy.fft else "pyfftw"


def good_size(length: int) -> int:
    """Smallest even FFT-friendly length of at least `length`."""
    size = max(2, int(length))
    while True:
        size = scipy.fft.next_fast_len(size, real=True)
        if size % 2 == 0:
            return size
        size += 1


class Transform:
    """Forward and inverse real FFT between ``shape`` and the half spectrum of ``grid``.

    Parameters
    ----------
    shape : sequence of int
        Shape (x, y, z) of the arrays; they lie at the start of the grid.
    grid : sequence of int, optional
        Shape of the periodic grid, at least `shape`; by default `shape` itself.

    Notes
    -----
    ``count`` tells how many transforms were made, forward and inverse alike: the unit in which
    the cost of every iterative method here is reported.
    """

    def __init__(self, shape: Sequence[int], grid: Sequence[int] | None = None):
        self.shape = tuple(int(n) for n in shape)
        self.grid = self.shape if grid is None else tuple(int(n) for n in grid)
        if any(g < n for g, n in zip(self.grid, self.shape, strict=True)):
            raise ValueError(f"grid {self.grid} is smaller than the array {self.shape}")
        self.spectrum = (*self.grid[:-1], self.grid[-1] // 2 + 1)
        self.count = 0

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Half spectrum of `x` (shape ``shape``), zero-padded to the grid."""
        self.count += 1
        workers = thread_count()
        if self.shape == self.grid:
            return _fft.rfftn(x, axes=(0, 1, 2), workers=workers)
        if self.shape[0] * self.shape[1] > _FULL * self.grid[0] * self.grid[1]:
            whole = np.zeros(self.grid, x.dtype)
            whole[tuple(slice(0, n) for n in self.shape)] = x
            return _fft.rfftn(whole, axes=(0, 1, 2), workers=workers, overwrite_x=True)
        out = _fft.rfft(x, n=self.grid[2], axis=2, workers=workers)
        out = _fft.fft(out, n=self.grid[1], axis=1, workers=workers, overwrite_x=True)
        return _fft.fft(out, n=self.grid[0], axis=0, workers=workers, overwrite_x=True)

    def inverse(self, spectrum: np.ndarray, overwrite: bool = True) -> np.ndarray:
        """Array of shape ``shape`` of a half spectrum, the padding cut off.

        The spectrum's memory is used as work space unless `overwrite` is false.
        """
        self.count += 1
        workers = thread_count()
        nx, ny, nz = self.shape
        # Axis by axis on a whole grid too: irfftn makes a copy of the spectrum, and takes a quarter
        # longer.
        out = _fft.ifft(spectrum, axis=0, workers=workers, overwrite_x=overwrite)[:nx]
        out = _fft.ifft(out, axis=1, workers=workers, overwrite_x=True)[:, :ny]
        return _fft.irfft(out, n=self.grid[2], axis=2, workers=workers)[:, :, :nz]


def frequencies(grid: Sequence[int], voxel_size: Sequence[float]) -> list[np.ndarray]:
    """Spatial frequencies (cycles per mm) of the half spectrum, broadcastable over its axes."""
    axes = [
        np.fft.fftfreq(grid[0], voxel_size[0]),
        np.fft.fftfreq(grid[1], voxel_size[1]),
        np.fft.rfftfreq(grid[2], voxel_size[2]),
    ]
    return [k.reshape([-1 if i == j else 1 for j in range(3)]) for i, k in enumerate(axes)]
