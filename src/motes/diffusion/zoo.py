"""The models that come with the package, by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal, overload

import torch
from safetensors import safe_open
from torch import Tensor, nn

from motes.core.errors import UnknownName
from motes.diffusion.denoiser import Denoiser
from motes.diffusion.networks import Classifier, UNet
from motes.diffusion.process import VariancePreserving

DIGITS_PROCESS = VariancePreserving(schedule="cosine", t_min=0.01, t_max=0.99)
DIGITS_SHAPE = (1, 8, 8)
MODELS = ("digits", "digits-classifier")


@overload
def load(name: Literal["digits"]) -> Denoiser: ...
@overload
def load(name: Literal["digits-classifier"]) -> Callable[[Tensor], Tensor]: ...
def load(name: str) -> Denoiser | Callable[[Tensor], Tensor]:
    """A model that comes with the package; scripts/train_digits.py made them.

    Args:
        name: "digits", the denoiser of scikit-learn's 8 x 8 handwritten digits, scaled to [-1, 1], shape (1, 8, 8); or
            "digits-classifier", from such images (N, 1, 8, 8), final or as the denoiser predicts them on the way, to
            log-probabilities (N, 10), nats.

    Raises:
        UnknownName: another name.

    References:
        Ronneberger, Fischer & Brox (2015), U-Net, MICCAI. The images: Alpaydin & Kaynak (1998), Optical Recognition of
        Handwritten Digits, UCI Machine Learning Repository.
    """
    if name == "digits":
        return Denoiser(_shipped(UNet, name), DIGITS_PROCESS, predicts="velocity", name=name)
    if name == "digits-classifier":
        return _shipped(Classifier, name)
    raise UnknownName("diffusion model", name, MODELS)


def _shipped(kind: Callable[[int], nn.Module], name: str) -> nn.Module:
    with as_file(files("motes.diffusion") / "weights" / f"{name}.safetensors") as path:
        return read(kind, path)


def read(kind: Callable[[int], nn.Module], path: Path) -> nn.Module:
    """The network in a file that scripts/train_digits.py wrote, in float32, ready for use.

    It is made without storage first: an ordinary initialisation would draw from the global generator.
    """
    with safe_open(path, "pt") as file:
        weights = {key: file.get_tensor(key).to(torch.float32) for key in file.keys()}  # noqa: SIM118
        channels = int(file.metadata()["channels"])
    with torch.device("meta"):
        network = kind(channels)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)
