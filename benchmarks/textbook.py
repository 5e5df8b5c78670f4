"""The chain as one would write it from the papers: NumPy, complex128, the whole image.

Nonlinear echo fit, Laplacian unwrapping, projection onto dipole fields, MEDI. Nothing is cropped,
skipped or compiled; every step does what its formula says with arrays of the whole field of view.
This is what the speed of the package is measured against.
"""

from __future__ import annotations

import numpy as np


def fit(magnitude, phase, echo_times):
    """Field (rad per echo spacing) and its noise (up to a factor), Gauss-Newton in all voxels."""
    signal = magnitude * np.exp(1j * phase)
    t = (np.asarray(echo_times) - echo_times[0]) / (echo_times[1] - echo_times[0])
    weight = np.abs(signal) ** 2
    a11, a12, a22 = weight.sum(-1), (weight * t).sum(-1), (weight * t**2).sum(-1)
    determinant = a11 * a22 - a12**2
    determinant[determinant == 0] = np.inf
    p0 = np.angle(signal[..., 0])
    p1 = np.angle(signal[..., 1] * np.conj(signal[..., 0]))
    for _ in range(10):
        model = np.abs(signal) * np.exp(1j * (p0[..., None] + p1[..., None] * t))
        slope = np.real(np.conj(1j * model) * (signal - model))
        b0, b1 = slope.sum(-1), (slope * t).sum(-1)
        p0 = p0 + (a22 * b0 - a12 * b1) / determinant
        p1 = p1 + (a11 * b1 - a12 * b0) / determinant
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = np.sqrt(a11 / determinant)
    return np.angle(np.exp(1j * p1)), noise


def frequencies(shape, voxel_size):
    axes = [np.fft.fftfreq(n, h) for n, h in zip(shape, voxel_size, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def dipole(shape, voxel_size, b0_dir):
    kx, ky, kz = frequencies(shape, voxel_size)
    b = np.asarray(b0_dir) / np.linalg.norm(b0_dir)
    k2 = kx**2 + ky**2 + kz**2
    k2[0, 0, 0] = 1
    kernel = 1 / 3 - (kx * b[0] + ky * b[1] + kz * b[2]) ** 2 / k2
    kernel[0, 0, 0] = 0
    return kernel


def convolve(x, kernel):
    return np.real(np.fft.ifftn(np.fft.fftn(x) * kernel))


def unwrap(phase, voxel_size):
    """Laplacian unwrapping of the whole field of view."""
    ks = frequencies(phase.shape, voxel_size)
    square = sum(
        (2 * np.cos(2 * np.pi * k * h) - 2) / h**2 for k, h in zip(ks, voxel_size, strict=True)
    )
    sine, cosine = np.sin(phase), np.cos(phase)
    source = cosine * convolve(sine, square) - sine * convolve(cosine, square)
    square[0, 0, 0] = 1
    inverse = 1 / square
    inverse[0, 0, 0] = 0
    return convolve(source, inverse)


def conjugate_gradients(operator, right_side, tolerance, iterations):
    x = np.zeros_like(right_side)
    residual = right_side.copy()
    direction = residual.copy()
    square = np.sum(residual**2)
    start = square
    for count in range(iterations):
        if square <= tolerance**2 * start:
            return x, count
        image = operator(direction)
        step = square / np.sum(direction * image)
        x = x + step * direction
        residual = residual - step * image
        new = np.sum(residual**2)
        direction = residual + new / square * direction
        square = new
    return x, iterations


def weights(noise, mask):
    with np.errstate(divide="ignore"):
        weight = np.where(mask & (noise > 0), 1 / noise, 0.0)
    weight[~np.isfinite(weight)] = 0
    return weight / weight[mask].mean()


def pdf(field, mask, noise, kernel, iterations=30):
    """Local field; sources outside the mask explain the rest."""
    weight2 = weights(noise, mask) ** 2
    outside = ~mask

    def operator(x):
        return outside * convolve(weight2 * convolve(outside * x, kernel), kernel)

    right_side = outside * convolve(weight2 * field, kernel)
    sources, _ = conjugate_gradients(operator, right_side, 0.0, iterations)
    return (field - convolve(outside * sources, kernel)) * mask


def gradient(x, voxel_size):
    return np.stack(
        [np.diff(x, axis=a, append=x.take([-1], a)) / h for a, h in enumerate(voxel_size)]
    )


def minus_divergence(g, voxel_size):
    total = np.zeros(g.shape[1:])
    for axis, h in enumerate(voxel_size):
        inner = np.moveaxis(g[axis].copy(), axis, 0)
        inner[-1] = 0
        out = np.moveaxis(total, axis, 0)
        out -= inner / h
        out[1:] += inner[:-1] / h
    return total


def edges(magnitude, mask, voxel_size, fraction=0.9):
    """Where the magnitude has no edge: the threshold is raised until few enough are left."""
    steps = np.abs(gradient(magnitude * mask, voxel_size))
    threshold = 0.01 * magnitude.max()
    count = fraction * mask.sum()
    while np.sum(steps > threshold) > count:
        threshold *= 1.05
    while np.sum(steps > threshold) < min(count, np.sum(steps > 0)):
        threshold *= 0.95
    return steps <= threshold


def medi(field, mask, noise, magnitude, voxel_size, kernel, strength=1000.0):
    """Map in rad, and how many iterations of the inner loop it took."""
    smooth = edges(magnitude, mask, voxel_size)
    weight2 = weights(noise, mask) ** 2
    x = np.zeros(field.shape)
    inner = 0
    for _ in range(10):
        diffusion = smooth / np.sqrt((smooth * gradient(x, voxel_size)) ** 2 + 1e-6)

        def penalty(y, diffusion=diffusion):
            return minus_divergence(diffusion * gradient(y, voxel_size), voxel_size)

        def operator(y, penalty=penalty):
            return penalty(y) + 2 * strength * convolve(weight2 * convolve(y, kernel), kernel)

        misfit = weight2 * np.sin(convolve(x, kernel) - field)
        right_side = -penalty(x) - 2 * strength * convolve(misfit, kernel)
        step, count = conjugate_gradients(operator, right_side, 0.01, 100)
        before = np.linalg.norm(x)
        x = x + step
        inner += count
        if before > 0 and np.linalg.norm(step) < 0.1 * before:
            break
    return x * mask, inner
