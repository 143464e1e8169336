"""Train the denoiser and the classifier of 28 x 28 images of clothes that come with motes, and write their weights.

    python scripts/train_fashion.py FASHION-MNIST [FOLDER] [--checkpoints FOLDER]        half an hour of one core

FASHION-MNIST is the folder with the four files of that name (the Debian package dataset-fashion-mnist puts them in
/usr/share/datasets/fashion-mnist). The denoiser learns with the class and without it, half of the time each. The
classifier learns from images as the denoiser predicts them, besides the images themselves, so that its answer about a
prediction is the probability of the class given the noisy state.

The losses that are printed at the end are of the 10,000 test images. Every random number comes from motes.rng.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import gzip
import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from motes.diffusion import Denoiser
from motes.diffusion.denoisers.pretrained import FASHION_PROCESS, read, write
from motes.diffusion.networks import ImageClassifier, ImageUNet
from motes.diffusion.training import Denoising
from motes.diffusion.training.denoising import noised
from motes.learn import Objective, Plan, build, fit
from motes.rng import Rng

SEED = 20261
FOLDER = Path(__file__).parents[1] / "src/motes/diffusion/weights"
DENOISER = {"channels": 48, "classes": 10}
CLASSIFIER = {"channels": 24}
DENOISER_PLAN = Plan(steps=5400, batch=64, rate=2e-3, warm_up=200, average=0.999, held_out=0.02, every=600)
STOP = 3000  # of the plan's 5400 steps: the images are good enough for examples
CLASSIFIER_PLAN = Plan(steps=1500, batch=64, rate=3e-3, warm_up=100, average=0.99, held_out=0.02, every=300)


def images(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images (M, 1, 28, 28) in [-1, 1] and labels (M,) of the part "train" or "t10k"."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        _, many, height, width = struct.unpack(">4i", file.read(16))
        pixels = np.frombuffer(file.read(), np.uint8).reshape(many, 1, height, width)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return torch.as_tensor(pixels / np.float32(127.5) - 1), torch.as_tensor(labels.astype(np.int64))


@dataclass(frozen=True)
class Classifying(Objective):
    """Negative log-probability of the label, half of the batch seen through noise and the denoiser."""

    denoiser: Denoiser

    def __call__(self, network: nn.Module, rng: Rng, batch: tuple[Tensor, ...]) -> Tensor:
        images, labels = batch
        at = noised(rng, self.denoiser.process, images[: len(images) // 2])
        with torch.no_grad():
            seen = torch.cat([self.denoiser.data(at.x, at.t), images[len(images) // 2 :]])
        return -network(seen).gather(1, labels[:, None])[:, 0]


def mean(values: Tensor) -> str:
    """A mean and its standard error."""
    return f"{float(values.double().mean()):.4f} ± {float(values.double().std() / math.sqrt(len(values))):.4f}"


def train_denoiser(data: Path, folder: Path, checkpoints: Path) -> None:
    network = build(lambda: ImageUNet(**DENOISER), seed=Rng(SEED).at("denoiser"))
    network = network.to(memory_format=torch.channels_last)
    objective = Denoising(FASHION_PROCESS, predicts="velocity", drop=0.5)
    path = checkpoints / "fashion.motes"
    fitted = fit(network, objective, images(data, "train"), plan=DENOISER_PLAN, seed=SEED, path=path, until=STOP)
    test = images(data, "t10k")
    report = {}
    with torch.no_grad():
        for name, drop in (("with the class", 0.0), ("without it", 1.0)):
            loss = replace(objective, drop=drop)
            parts = range(0, 10000, 500)
            each = [
                loss(fitted.network, Rng(SEED).at("test", step=i), tuple(d[i : i + 500] for d in test)) for i in parts
            ]
            report[name] = mean(torch.cat(each))
    print(f"denoiser: {fitted}; test loss {report}")
    about = {**DENOISER, "test loss": report, "seed": SEED, "plan": DENOISER_PLAN, "stopped after": STOP}
    write(fitted.network, folder / "fashion.safetensors", about)


def train_classifier(data: Path, folder: Path, checkpoints: Path) -> None:
    denoiser = Denoiser(read(ImageUNet, folder / "fashion.safetensors"), FASHION_PROCESS, predicts="velocity")
    network = build(lambda: ImageClassifier(**CLASSIFIER), seed=Rng(SEED).at("classifier"))
    network = network.to(memory_format=torch.channels_last)
    path = checkpoints / "fashion-classifier.motes"
    loss = Classifying(denoiser)
    fitted = fit(network, loss, images(data, "train"), plan=CLASSIFIER_PLAN, seed=SEED, path=path)
    pictures, labels = images(data, "t10k")
    with torch.no_grad():
        right = fitted.network(pictures).argmax(1) == labels
        each = loss(fitted.network, Rng(SEED).at("test"), (pictures[:2000], labels[:2000]))
    report = {"accuracy": mean(right), "of predictions": mean(each[:1000]), "of images": mean(each[1000:])}
    print(f"classifier: {fitted}; {report}")
    about = {**CLASSIFIER, "test": report, "seed": SEED, "plan": CLASSIFIER_PLAN}
    write(fitted.network, folder / "fashion-classifier.safetensors", about)


if __name__ == "__main__":
    torch.set_num_threads(1)  # the order of sums, and with it the weights' last bits, depends on the number of threads
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--checkpoints", type=Path, default=Path("runs/fashion"))
    given = parser.parse_args()
    train_denoiser(given.data, given.folder, given.checkpoints)
    train_classifier(given.data, given.folder, given.checkpoints)
