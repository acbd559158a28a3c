"""Multi-scale structural similarity, as the package torchmetrics measures it.

It has no learned part and reads no weights. Needs the extra `quality`, which is imported when
a picture is measured.
"""

from __future__ import annotations

import numpy as np

from workloads.training.metrics import measure


def ms_ssim(found: np.ndarray, wanted: np.ndarray) -> float:
    """MS-SSIM (Wang, Simoncelli and Bovik 2003) of two uint8 pictures (rows, columns, 3).

    1 for equal pictures; the smaller side must be above 160. `ModuleNotFoundError` without
    torchmetrics.
    """
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    first, second = (torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))[None]) / 255
                     for picture in (found, wanted))
    return float(multiscale_structural_similarity_index_measure(first, second, data_range=1.0))


def judged(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """All measures of one picture: those of `measure` and `ms_ssim`."""
    return {**measure(found, wanted), "ms_ssim": ms_ssim(found, wanted)}
