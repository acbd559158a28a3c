"""Measures how far one picture is from another: PSNR, SSIM and a gradient distance.

It needs numpy only and knows nothing of networks; pictures are float [rows, cols, 3] in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

#: Measures of a found picture beside the wanted one, by name.
Judge = Callable[[np.ndarray, np.ndarray], dict[str, float]]
# GMSD's constant 170 is for 0..255 with Prewitt filters divided by 3; in 0..1 it is 170 / 255^2.
GRADIENT_FLOOR = 170 / 255**2
SCALES = 4
LUMA = np.array([0.299, 0.587, 0.114])


def unit(picture: np.ndarray) -> np.ndarray:
    """Return a uint8 or float picture as float64 in 0..1."""
    scale = 255.0 if picture.dtype == np.uint8 else 1.0
    return picture.astype(np.float64) / scale


def psnr_db(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB over all values; 100 for equal pictures."""
    error = float(np.mean((unit(found) - unit(wanted)) ** 2))
    return 100.0 if error <= 1e-10 else -10 * float(np.log10(error))


def window_mean(plane: np.ndarray, size: int) -> np.ndarray:
    """Return the mean of every whole size x size window of [rows, cols, ...]."""
    for axis in (0, 1):
        total = np.cumsum(plane, axis=axis)
        zero = np.zeros_like(np.take(total, [0], axis=axis))
        total = np.concatenate([zero, total], axis=axis)
        count = total.shape[axis]
        ahead = np.take(total, range(size, count), axis=axis)
        plane = (ahead - np.take(total, range(count - size), axis=axis)) / size
    return plane


def ssim(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the mean structural similarity: 7x7 uniform windows, per colour, K = 0.01, 0.03.

    This is scikit-image's default (sample covariance, borders left out).
    """
    first, second = unit(found), unit(wanted)
    size, correct = 7, 49 / 48
    mean1, mean2 = window_mean(first, size), window_mean(second, size)
    variance1 = correct * (window_mean(first**2, size) - mean1**2)
    variance2 = correct * (window_mean(second**2, size) - mean2**2)
    shared = correct * (window_mean(first * second, size) - mean1 * mean2)
    low, high = 0.01**2, 0.03**2
    top = (2 * mean1 * mean2 + low) * (2 * shared + high)
    return float(np.mean(top / ((mean1**2 + mean2**2 + low) * (variance1 + variance2 + high))))


def gradient(luma: np.ndarray) -> np.ndarray:
    """Return the Prewitt gradient magnitude of [rows, cols], borders left out."""
    across = luma[:, 2:] - luma[:, :-2]
    across = (across[:-2] + across[1:-1] + across[2:]) / 3
    down = luma[2:] - luma[:-2]
    down = (down[:, :-2] + down[:, 1:-1] + down[:, 2:]) / 3
    return np.hypot(across, down)


def perceptual_distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the multi-scale gradient distance: 0 for equal pictures, larger is worse.

    At each of four halvings, the standard deviation over the picture of the gradient-magnitude
    similarity of luma (GMSD, Xue et al. 2014); the mean of the four. It has no learned part.
    """
    first, second = unit(found) @ LUMA, unit(wanted) @ LUMA
    total = 0.0
    for scale in range(SCALES):
        if scale:
            first, second = halve(first), halve(second)
        one, other = gradient(first), gradient(second)
        alike = (2 * one * other + GRADIENT_FLOOR) / (one**2 + other**2 + GRADIENT_FLOOR)
        total += float(np.std(alike))
    return total / SCALES


def halve(plane: np.ndarray) -> np.ndarray:
    """Return 2x2 means of [rows, cols]; an odd last row or column is dropped."""
    rows, cols = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    return plane[:rows, :cols].reshape(rows // 2, 2, cols // 2, 2).mean(axis=(1, 3))


def measure(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Return `psnr_db`, `ssim` and `perceptual_distance` of one picture."""
    return {
        "psnr_db": psnr_db(found, wanted),
        "ssim": ssim(found, wanted),
        "perceptual_distance": perceptual_distance(found, wanted),
    }


def rounding_losses(
    pictures: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """Return the mean PSNR in dB of (wanted, float, int8) pictures: both against the wanted one,
    and int8 against float; rounded to what a file keeps."""
    rows = [(psnr_db(wanted, real), psnr_db(wanted, whole), psnr_db(real, whole))
            for wanted, real, whole in pictures]
    names = ("float_psnr_db", "int8_psnr_db", "int8_against_float_psnr_db")
    return {name: round(float(value), 3)
            for name, value in zip(names, np.mean(rows, axis=0), strict=True)}


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each measure over pictures; ValueError for an empty list."""
    if not rows:
        raise ValueError("no picture was measured")
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
