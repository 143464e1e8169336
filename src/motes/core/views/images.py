"""Pictures."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from motes.core.views import views
from motes.core.views._view import Distinct, View, merged


def shown(shape: tuple[int, ...]) -> str:
    """The kind of view of data of a shape: images (C, H, W) with one or three channels, else a table."""
    return "images" if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1 else "table"


@views.register
class ImageView(View):
    """A tensor (N, C, H, W) with one or three channels, brightness from 0 to 1 or from -1 to 1; or counts.

    Counts, whole numbers, are shown as shares of the largest.
    """

    kind = "images"
    needs = "a tensor (N, C, H, W) with one or three channels"
    plural = "images"
    listed = True

    def fits(self) -> bool:
        return isinstance(self.value, Tensor) and shown(tuple(self.value.shape[1:])) == self.kind

    def distinct(self, weight: np.ndarray) -> list[Distinct]:
        images = self.value
        if not images.is_floating_point():
            images = images.double() / images.double().max().clamp(min=1)
        signed = is_signed(images)
        pixels = [to_pixels(images[i : i + 1], signed)[0] for i in range(len(images))]
        return merged([(hashlib.sha256(p.tobytes()).digest(), p) for p in pixels], weight)


def is_signed(images: Tensor) -> bool:
    """Whether brightness runs from -1 to 1 and not from 0 to 1: more than a hundredth is clearly negative."""
    return bool((images < -0.2).double().mean() > 0.01)


def to_pixels(images: Tensor, signed: bool | None = None) -> np.ndarray:
    """(N, C, H, W), brightness from 0 to 1 or, `signed`, from -1 to 1, to uint8 (N, H, W) or (N, H, W, 3).

    What lies outside is cut, and NaN is black.
    """
    x = images.detach().cpu().float()
    if is_signed(images) if signed is None else signed:
        x = (x + 1) / 2
    pixels = (255 * x.nan_to_num(0.0).clamp(0, 1)).round().to(torch.uint8).movedim(1, -1).numpy()
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
