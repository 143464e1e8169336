"""Small networks: for images of 8 x 8 and 28 x 28, points of a plane and sequences of tokens."""

from motes.diffusion.networks.digits import Block as Block
from motes.diffusion.networks.digits import Classifier as Classifier
from motes.diffusion.networks.digits import UNet as UNet
from motes.diffusion.networks.images import ImageClassifier as ImageClassifier
from motes.diffusion.networks.images import ImageUNet as ImageUNet
from motes.diffusion.networks.labelled import Labelled as Labelled
from motes.diffusion.networks.plane import Generator as Generator
from motes.diffusion.networks.plane import PointNetwork as PointNetwork
from motes.diffusion.networks.sequence import SequenceNetwork as SequenceNetwork
from motes.diffusion.networks.start import build as build
from motes.diffusion.networks.start import initialise as initialise
