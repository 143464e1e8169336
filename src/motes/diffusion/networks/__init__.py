"""Small networks: for images of 8 x 8 and 28 x 28, and for sequences of tokens."""

from motes.diffusion.networks.digits import Classifier, ResidualBlock, UNet
from motes.diffusion.networks.images import ImageClassifier, ImageUNet
from motes.diffusion.networks.labelled import Labelled
from motes.diffusion.networks.sequence import SequenceNetwork

__all__ = [
    "Classifier",
    "ImageClassifier",
    "ImageUNet",
    "Labelled",
    "ResidualBlock",
    "SequenceNetwork",
    "UNet",
]
