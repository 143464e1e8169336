"""The models that come with the package, by name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from motes.core.files.atomic import replacing
from motes.diffusion.denoisers.denoiser import Denoiser
from motes.diffusion.discrete.model import TokenModel
from motes.diffusion.discrete.process import Masked
from motes.diffusion.networks import Classifier, ImageClassifier, ImageUNet, Labelled, SequenceNetwork, UNet
from motes.diffusion.processes.process import VariancePreserving
from motes.errors import MotesError, UnknownName

DIGITS_PROCESS = VariancePreserving(schedule="cosine", t_min=0.01, t_max=0.99)
DIGITS_SHAPE = (1, 8, 8)
FASHION_PROCESS = VariancePreserving(schedule="cosine", t_min=0.01, t_max=0.99)
FASHION_SHAPE = (1, 28, 28)
FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DNA_PROCESS = Masked(4)
DNA_LENGTH = 200
DNA_BASES = "ACGT"
DNA_CELLS = ("GM12878", "hESCT0", "K562", "HepG2")
LABELS = {"fashion": FASHION_CLASSES, "dna": DNA_CELLS}
MODELS = ("digits", "digits-classifier", "fashion", "fashion-classifier", "dna")


@overload
def load(name: Literal["digits"]) -> Denoiser: ...
@overload
def load(name: Literal["fashion"], label: int | str | None = None) -> Denoiser: ...
@overload
def load(name: Literal["digits-classifier", "fashion-classifier"]) -> Callable[[Tensor], Tensor]: ...
@overload
def load(name: Literal["dna"], label: int | str | None = None) -> TokenModel: ...
def load(name: str, label: int | str | None = None) -> Denoiser | TokenModel | Callable[[Tensor], Tensor]:
    """A model that comes with the package; scripts/train_digits.py, train_fashion.py and train_dna.py made them.

    Args:
        name: one of

            - "digits", the denoiser of scikit-learn's 8 x 8 handwritten digits, scaled to [-1, 1], shape (1, 8, 8);
            - "digits-classifier", from such images (N, 1, 8, 8), final or as the denoiser predicts them on the way, to
              log-probabilities (N, 10), nats;
            - "fashion", the denoiser of Fashion-MNIST's 28 x 28 pictures of clothes, scaled to [-1, 1], shape
              (1, 28, 28), and "fashion-classifier", from such images to log-probabilities of `FASHION_CLASSES`;
            - "dna", a masked model of 200 bases A, C, G, T = 0, 1, 2, 3 of human DNA that is open in some cell type.
        label: for "fashion" a class, by number or name, for "dna" a cell type of `DNA_CELLS`: the model of that class;
            None is the model of all.

    Raises:
        UnknownName: another name or label.
        ValueError: a label for a model that has none.

    References:
        Ronneberger, Fischer & Brox (2015), U-Net, MICCAI. Digits: Alpaydin & Kaynak (1998), Optical Recognition of
        Handwritten Digits, UCI Machine Learning Repository. Clothes: Xiao, Rasul & Vollgraf (2017), Fashion-MNIST: a
        Novel Image Dataset for Benchmarking Machine Learning Algorithms, arXiv:1708.07747. DNA: Meuleman et al. (2020),
        Index and Biological Spectrum of Human DNase I Hypersensitive Sites, Nature 584 (ENCODE), as in the package
        dnadiffusion.
    """
    if label is not None and name in MODELS and name not in LABELS:
        raise MotesError(f"{name} has no labels; {' and '.join(LABELS)} do")
    if name == "digits":
        return Denoiser(_shipped(UNet, name), DIGITS_PROCESS, predicts="velocity", name=name)
    if name == "digits-classifier":
        return _shipped(Classifier, name)
    if name == "fashion-classifier":
        return _shipped(ImageClassifier, name)
    if name == "fashion":
        network, full = _labelled(_shipped(ImageUNet, name), name, label)
        return Denoiser(network, FASHION_PROCESS, predicts="velocity", name=full)
    if name == "dna":
        network, full = _labelled(_shipped(SequenceNetwork, name), name, label)
        return TokenModel(network, DNA_PROCESS, DNA_LENGTH, name=full)
    raise UnknownName("diffusion model", name, MODELS)


def _labelled(network: nn.Module, name: str, label: int | str | None) -> tuple[Callable[..., Tensor], str]:
    """The network asked about a label, and the model's name with it."""
    if label is None:
        return network, name
    names = LABELS[name]
    number = names.index(label) if label in names else label
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise UnknownName(f"label of {name}", label, names)
    return Labelled(network, number), f"{name}: {names[number]}"


def _shipped(kind: Callable[..., nn.Module], name: str) -> nn.Module:
    with as_file(files("motes.diffusion") / "weights" / f"{name}.safetensors") as path:
        return read(kind, path)


def read(kind: Callable[..., nn.Module], path: Path) -> nn.Module:
    """The network in a file that `write` made, in float32, ready for use.

    It is made without storage first: an ordinary initialisation would draw from the global generator.
    """
    with safe_open(path, "pt") as file:
        weights = {key: file.get_tensor(key).to(torch.float32) for key in file.keys()}  # noqa: SIM118
        about = file.metadata()
    sizes = {k: int(about[k]) for k in inspect.signature(kind).parameters if k in about}
    with torch.device("meta"):
        network = kind(**sizes)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def write(network: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """The weights in half precision; what the network needs to be made again, and how it was trained, in the header."""
    weights = {k: v.to(torch.float16).contiguous() for k, v in network.state_dict().items()}
    plain = {k: asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for k, v in about.items()}
    header = {k: v if isinstance(v, str) else json.dumps(v) for k, v in plain.items()}
    with replacing(path) as aside:
        save_file(weights, aside, metadata=header)
