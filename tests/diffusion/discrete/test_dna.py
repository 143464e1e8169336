"""The model of DNA that comes with the package: what it knows of bases, their pairs and cell types."""

import math

import pytest
import torch

import motes
from motes import Rng
from motes.diffusion import load
from motes.diffusion.denoisers.pretrained import DNA_BASES, DNA_LENGTH, DNA_PROCESS
from motes.diffusion.discrete import ReverseDiscrete
from motes.diffusion.training import TokenDenoising
from motes.errors import UnknownName


def drawn(many: int, steps: int) -> torch.Tensor:
    model = ReverseDiscrete(load("dna"), steps)
    with pytest.warns(match="several places"):
        return motes.sample(model, many, seed=1, progress=False).view


def test_pairs_of_bases_are_those_of_the_genome():
    """CG is rare (1.3 % of pairs, where independent bases would make it 5.6 %) and half of the bases are G or C.

    48 sequences have 9,552 pairs: the standard error is .0015 for rare pairs, runs of sequences allowed for.
    """
    tokens = drawn(48, 50)
    assert tokens.shape == (48, DNA_LENGTH) and int(tokens.min()) >= 0
    c, g = DNA_BASES.index("C"), DNA_BASES.index("G")
    pair = (tokens[:, :-1] == c) & (tokens[:, 1:] == g)
    assert 0.006 < float(pair.double().mean()) < 0.022
    rich = ((tokens == c) | (tokens == g)).double().mean()
    assert abs(float(rich) - 0.47) < 0.05


def test_the_models_own_sequences_are_likelier_than_shuffled_ones():
    """The bound per base of sequences and of the same bases in a random order, under the same masks."""
    tokens = drawn(32, 50)
    order = Rng(3).permutation(DNA_LENGTH)
    loss = TokenDenoising(DNA_PROCESS)
    with torch.no_grad():
        own, shuffled = (loss(load("dna"), Rng(4), (x,)) for x in (tokens, tokens[:, order]))  # type: ignore[arg-type]
    assert float(own.mean()) < float(shuffled.mean()) - 0.01
    assert float(own.mean()) < math.log(4)


def test_cell_types_have_models_of_their_own():
    x, t = torch.full((1, DNA_LENGTH), -1), 1.0
    all_, k562 = load("dna")(x, t), load("dna", "K562")(x, t)
    assert torch.allclose(all_.exp().sum(-1), torch.ones(1, DNA_LENGTH), atol=1e-5)
    assert torch.equal(k562, load("dna", 2)(x, t)) and not torch.allclose(k562, all_, atol=1e-3)
    with pytest.raises(UnknownName, match="K562"):
        load("dna", "K652")
