"""Language models: texts under rules, constraints and rewards, with weights that make them right."""

from motes.language.constraint import Constraint, grammar, json_schema, regex
from motes.language.generation import Generation
from motes.language.hub import TransformersModel, load
from motes.language.model import LanguageModel
from motes.language.rule import Rule
from motes.language.rules import nucleus, temperature, top_k
from motes.language.table import TableModel

__all__ = [
    "Constraint",
    "Generation",
    "LanguageModel",
    "Rule",
    "TableModel",
    "TransformersModel",
    "grammar",
    "json_schema",
    "load",
    "nucleus",
    "regex",
    "temperature",
    "top_k",
]
