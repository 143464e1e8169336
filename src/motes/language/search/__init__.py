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
from motes.language.search.information import information_search
from motes.language.search.p_exact import dynamic_beam, p_exact
from motes.language.search.phi import foresight_weights, phi_decoding
from motes.language.search.poisson_beam import PoissonBeam
from motes.language.search.population import unbiased_mean
from motes.language.search.priority import priority_sampling
from motes.language.search.reprompting import Problem, Reprompted, reprompting
from motes.language.search.search_result import SearchResult
from motes.language.search.stochastic_beam import StochasticBeam
from motes.language.search.watermarked import Aligned, Watermarked, alignment_resampling, draw_keys

__all__ = [
    "Aligned",
    "Arithmetic",
    "Decision",
    "PoissonBeam",
    "Problem",
    "Reprompted",
    "SearchResult",
    "StochasticBeam",
    "Watermarked",
    "alignment_resampling",
    "bayes_risk",
    "beam_search",
    "best_of_n_bound",
    "best_of_n_divergence",
    "best_of_n_estimate",
    "best_of_n_law",
    "draw_keys",
    "dynamic_beam",
    "foresight_weights",
    "greedy",
    "information_search",
    "p_exact",
    "phi_decoding",
    "priority_sampling",
    "reprompting",
    "unbiased_mean",
    "vote",
]
