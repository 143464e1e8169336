"""How sure a language model is: entropies, meanings, sets and tests on weighted texts, with error bars."""

# written by `make golden`
from motes.core.estimate.conformal import conformal_quantile
from motes.core.estimate.roc import Auroc, auroc
from motes.language.uncertainty.answers import Answers, measures
from motes.language.uncertainty.clusters import ByEmbedding, ByFunction, ByJudge, ByKey, Meaning, cluster
from motes.language.uncertainty.conformal import ConformalSets, strangeness
from motes.language.uncertainty.context import ContextEffect, contextual_entropy_reduction
from motes.language.uncertainty.embedding import MiniLM, embed_texts
from motes.language.uncertainty.entropy import perplexity
from motes.language.uncertainty.entropy import sequence_entropy
from motes.language.uncertainty.entropy import token_entropy
from motes.language.uncertainty.information import answer_information, iterated_answers
from motes.language.uncertainty.missing import good_turing
from motes.language.uncertainty.missing import missing_mass
from motes.language.uncertainty.probe import Probe, best_split, hidden_states, out_of_fold
from motes.language.uncertainty.provenance import Provenance, provenance
from motes.language.uncertainty.pursuit import InformationPursuit, calibrate, entropy_bound
from motes.language.uncertainty.score import score, score_run, score_tokens
from motes.language.uncertainty.scored import Scored
from motes.language.uncertainty.semantic import semantic_entropy
from motes.language.uncertainty.semantic import semantic_entropy_of_likelihood
from motes.language.uncertainty.shapley import kernel_entropy
from motes.language.uncertainty.shapley import shapley_uncertainty
from motes.language.uncertainty.volume import semantic_volume

__all__ = [
    "Answers",
    "Auroc",
    "ByEmbedding",
    "ByFunction",
    "ByJudge",
    "ByKey",
    "ConformalSets",
    "ContextEffect",
    "InformationPursuit",
    "Meaning",
    "MiniLM",
    "Probe",
    "Provenance",
    "Scored",
    "answer_information",
    "auroc",
    "best_split",
    "calibrate",
    "cluster",
    "conformal_quantile",
    "contextual_entropy_reduction",
    "embed_texts",
    "entropy_bound",
    "good_turing",
    "hidden_states",
    "iterated_answers",
    "kernel_entropy",
    "measures",
    "missing_mass",
    "out_of_fold",
    "perplexity",
    "provenance",
    "score",
    "score_run",
    "score_tokens",
    "semantic_entropy",
    "semantic_entropy_of_likelihood",
    "semantic_volume",
    "sequence_entropy",
    "shapley_uncertainty",
    "strangeness",
    "token_entropy",
]
