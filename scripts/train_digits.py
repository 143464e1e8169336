"""Train the two networks that come with motes on scikit-learn's 8 x 8 digits, and write their weights.

    python scripts/train_digits.py [folder]        about 8 minutes of one core; needs scikit-learn

The classifier learns from images as the denoiser predicts them, besides the images themselves: so its answer about a
prediction is the probability of the class given the noisy state, which is what intermediate rewards and guidance want.

A tenth of the images is held out; the script prints the losses on both parts, so that overfitting shows. Every random
number comes from motes.rng, so the same machine makes the same weights.
"""

# ruff: noqa: T201

from __future__ import annotations

import copy
import json
import math
import sys
import time
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from motes.diffusion import Denoiser
from motes.diffusion.denoisers.pretrained import DIGITS_PROCESS, read
from motes.diffusion.networks import Classifier, UNet
from motes.rng import Rng

SEED = 20260
FOLDER = Path(__file__).parents[1] / "src/motes/diffusion/weights"
DENOISER = {"channels": 24, "steps": 3600, "batch": 128, "rate": 2e-3, "average": 0.999}
CLASSIFIER = {"channels": 16, "steps": 1500, "batch": 128, "rate": 3e-3, "average": 0.99}


def initialise(network: nn.Module, rng: Rng) -> None:
    """Normal weights scaled by fan-in; biases and the last convolution of each residual block zero, norms one."""
    for name, p in network.named_parameters():
        with torch.no_grad():
            if p.ndim == 1:
                p.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif "conv2" in name:
                p.zero_()
            else:
                p.copy_(rng.at(name).normal(p.shape, dtype=torch.float32) / math.sqrt(p[0].numel()))


def train(network: nn.Module, loss, data: tuple[Tensor, ...], setup: dict, rng: Rng) -> nn.Module:
    """Adam with a warm-up and a cosine-shaped rate; returns the exponential average of the weights.

    `loss(network, rng, *batch)` returns (B,) losses.
    """
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.Adam(network.parameters(), setup["rate"], betas=(0.9, 0.99))
    began = time.time()
    for k in range(setup["steps"]):
        for group in optimiser.param_groups:
            group["lr"] = setup["rate"] * min(1, (k + 1) / 200) * 0.5 * (1 + math.cos(math.pi * k / setup["steps"]))
        r = rng.at("batch", step=k)
        pick = r.at("pick").integers((setup["batch"],), len(data[0]))
        value = loss(network, r, *(d[pick] for d in data)).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        with torch.no_grad():
            decay = min(setup["average"], (k + 1) / (k + 20))
            for a, p in zip(averaged.parameters(), network.parameters(), strict=True):
                a.lerp_(p, 1 - decay)
        if (k + 1) % 300 == 0:
            print(f"  step {k + 1:5d}  loss {float(value.detach()):.4f}  {time.time() - began:.0f} s", flush=True)
    return averaged


def noised(rng: Rng, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States of the process at times uniform in (0, 1): state, time, velocity, and the images again."""
    t = rng.at("time").uniform((len(images),), dtype=torch.float32)
    noise = rng.at("noise").normal(images.shape, dtype=torch.float32)
    alpha, sigma = (f(t).to(images).reshape(-1, 1, 1, 1) for f in (DIGITS_PROCESS.alpha, DIGITS_PROCESS.sigma))
    return alpha * images + sigma * noise, t, alpha * noise - sigma * images, images


def denoising_loss(network: nn.Module, rng: Rng, images: Tensor) -> Tensor:
    """Mean squared error of the predicted velocity."""
    state, t, velocity, _ = noised(rng, images)
    return (network(state, t) - velocity).square().mean((1, 2, 3))


def class_loss(denoiser: Denoiser, network: nn.Module, rng: Rng, images: Tensor, labels: Tensor) -> Tensor:
    """Negative log-probability of the label, half of the batch seen through noise and the denoiser."""
    half = len(images) // 2
    state, t, *_ = noised(rng, images[:half])
    with torch.no_grad():
        seen = torch.cat([denoiser.data(state, t), images[half:]])
    return -network(seen).gather(1, labels[:, None])[:, 0]


def write(network: nn.Module, path: Path, setup: dict) -> None:
    """The weights in half precision, with how they were made in the header."""
    weights = {k: v.to(torch.float16).contiguous() for k, v in network.state_dict().items()}
    about = {"channels": str(setup["channels"]), "training": json.dumps({"seed": SEED, **setup})}
    save_file(weights, path, metadata=about)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {sum(v.numel() for v in weights.values())} numbers")


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (1797, 1, 8, 8) in [-1, 1], labels, and which of them are kept for training and held out."""
    images, labels = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    order = Rng(SEED).at("split").permutation(len(images))
    return (images / 8 - 1).to(torch.float32).reshape(-1, 1, 8, 8), labels, order[180:], order[:180]


def train_denoiser(folder: Path) -> None:
    rng, (images, _, kept, held) = Rng(SEED), digits()
    network = UNet(DENOISER["channels"])
    initialise(network, seed=rng.at("denoiser/start"))
    network = train(network, denoising_loss, (images[kept],), DENOISER, rng.at("denoiser"))
    for name, part in (("kept", kept[:180]), ("held out", held)):
        losses = [denoising_loss(network, rng.at("check", step=k), images[part]).mean() for k in range(20)]
        print(f"denoiser, {name}: loss {float(torch.stack(losses).mean()):.4f}")
    write(network, folder / "digits.safetensors", DENOISER)


def train_classifier(folder: Path) -> None:
    rng, (images, labels, kept, held) = Rng(SEED), digits()
    denoiser = Denoiser(read(UNet, folder / "digits.safetensors"), DIGITS_PROCESS, predicts="velocity")
    network = Classifier(CLASSIFIER["channels"])
    initialise(network, seed=rng.at("classifier/start"))
    loss = partial(class_loss, denoiser)
    network = train(network, loss, (images[kept], labels[kept]), CLASSIFIER, rng.at("classifier"))
    for name, part in (("kept", kept), ("held out", held)):
        right = (network(images[part]).argmax(1) == labels[part]).double().mean()
        nats, half = loss(network, rng.at("check"), images[part], labels[part]), len(part) // 2
        print(f"classifier, {name}: accuracy {float(right):.4f}, loss {float(nats[half:].mean()):.4f}, ", end="")
        print(f"of predictions {float(nats[:half].mean()):.4f}")
    write(network, folder / "digits-classifier.safetensors", CLASSIFIER)


if __name__ == "__main__":
    torch.set_num_threads(1)  # the order of sums, and with it the weights' last bits, depends on the number of threads
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    train_denoiser(folder)
    train_classifier(folder)
