"""Search, diverse texts and texts without replacement; what a decision makes of weighted texts."""

from motes.language.search.arithmetic import Arithmetic
from motes.language.search.beam_search import beam_search, greedy
from motes.language.search.best_of_n import (
    best_of_n_bound,
    best_of_n_divergence,
    best_of_n_estimate,
    best_of_n_law,
)
from motes.language.search.decide import Decision, bayes_risk, vote
from motes.language.search.found import Found
from motes.language.search.information import information_search
from motes.language.search.p_exact import dynamic_beam, p_exact
from motes.language.search.poisson_beam import PoissonBeam
from motes.language.search.population import unbiased_mean
from motes.language.search.priority import priority_sampling
from motes.language.search.stochastic_beam import StochasticBeam

__all__ = [
    "Arithmetic",
    "Decision",
    "Found",
    "PoissonBeam",
    "StochasticBeam",
    "bayes_risk",
    "beam_search",
    "best_of_n_bound",
    "best_of_n_divergence",
    "best_of_n_estimate",
    "best_of_n_law",
    "dynamic_beam",
    "greedy",
    "information_search",
    "p_exact",
    "priority_sampling",
    "unbiased_mean",
    "vote",
]
