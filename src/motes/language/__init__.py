"""Language models: texts under rules, constraints and rewards, with weights that make them right."""

from motes.language import compression, evaluation, rules, search, source, speculation, uncertainty
from motes.language.bytewise.bytes import ByteModel, next_bytes
from motes.language.bytewise.healing import healed
from motes.language.compression import compress, decompress
from motes.language.constraint import Constraint
from motes.language.constraint import constraints as _constraints
from motes.language.generation.discrete_filter import DiscreteParticleFilter
from motes.language.generation.generation import Generation
from motes.language.generation.particle_gibbs import particle_gibbs
from motes.language.generation.potential import Potential, on_tokens, reward_model
from motes.language.generation.resample_move import ResampleMove
from motes.language.models.hugging_face import TransformersModel, load
from motes.language.models.model import LanguageModel
from motes.language.models.table import TableModel
from motes.language.processor import processor
from motes.language.rule import Rule
from motes.language.rule import rules as _rules
from motes.language.speculation import SpeculativeGeneration, speculating

__all__ = [
    "ByteModel",
    "Constraint",
    "SpeculativeGeneration",
    "DiscreteParticleFilter",
    "Generation",
    "LanguageModel",
    "Potential",
    "ResampleMove",
    "Rule",
    "TableModel",
    "TransformersModel",
    "compress",
    "compression",
    "decompress",
    "evaluation",
    "healed",
    "load",
    "next_bytes",
    "on_tokens",
    "particle_gibbs",
    "processor",
    "reward_model",
    "rules",
    "search",
    "source",
    "speculating",
    "speculation",
    "uncertainty",
    *_constraints.door(globals()),
    *_rules.door(globals(), by_class=False, by_name=True),
]
