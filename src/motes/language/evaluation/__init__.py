"""Evaluations with few questions: posterior intervals, comparisons of two models, clusters, weighted answers."""

from motes.core.estimate.beta import beta_interval
from motes.language.evaluation.accuracy import Accuracy, Counts, accuracy, accuracy_of_run
from motes.language.evaluation.clustered import accuracy_of_runs, clustered_accuracy
from motes.language.evaluation.comparison import Comparison, compare, compare_paired

__all__ = [
    "Accuracy",
    "Comparison",
    "Counts",
    "accuracy",
    "accuracy_of_run",
    "accuracy_of_runs",
    "beta_interval",
    "clustered_accuracy",
    "compare",
    "compare_paired",
]
