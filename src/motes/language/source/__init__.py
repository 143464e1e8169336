"""A language model as a random source: the chain that it is, and tests of the flips and numbers that it writes."""

from motes.language.source.bias import bias
from motes.language.source.flips import Flips, examine, flips
from motes.language.source.markov import WindowChain
from motes.language.source.order import ngrams, runs, serial_correlation
from motes.language.source.prediction import Bet, bet
from motes.language.source.result import Examination, SourceTest

__all__ = [
    "Bet",
    "Examination",
    "Flips",
    "SourceTest",
    "WindowChain",
    "bet",
    "bias",
    "examine",
    "flips",
    "ngrams",
    "runs",
    "serial_correlation",
]
