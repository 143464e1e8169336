"""Language models: texts under rules, constraints and rewards, with weights that make them right."""

# written by `make golden`
from motes.language import compression, evaluation, rules, search, source, speculation, uncertainty
from motes.language.bytewise.bytes import ByteModel, next_bytes
from motes.language.bytewise.healing import healed
from motes.language.compression import compress, decompress
from motes.language.constraint import Constraint
from motes.language.constraint import constraints as _constraints
from motes.language.constraints.canonical import canonical
from motes.language.constraints.choices import choices
from motes.language.constraints.parsed import grammar
from motes.language.constraints.parsed import json_schema
from motes.language.constraints.parsed import regex
from motes.language.constraints.predicate import predicate
from motes.language.constraints.product import both
from motes.language.constraints.starts_with import starts_with
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
from motes.language.rules.antidistillation import Antidistillation
from motes.language.rules.basis_aware import BasisAware
from motes.language.rules.bregman import Bregman
from motes.language.rules.dynamic_temperature import DynamicTemperature
from motes.language.rules.entropy_temperature import EntropyTemperature
from motes.language.rules.epsilon import Epsilon
from motes.language.rules.eta import Eta
from motes.language.rules.frequency import Frequency
from motes.language.rules.gamma_sampling import GammaSampling
from motes.language.rules.green_list import GreenList
from motes.language.rules.guidance import PromptGuidance
from motes.language.rules.gumbel_watermark import GumbelWatermark
from motes.language.rules.kl_temperature import KLTemperature
from motes.language.rules.logit_bias import LogitBias
from motes.language.rules.min_new_tokens import MinNewTokens
from motes.language.rules.min_p import MinP
from motes.language.rules.mirostat import Mirostat1
from motes.language.rules.mirostat import Mirostat2
from motes.language.rules.no_repeat import NoRepeat
from motes.language.rules.nucleus import Nucleus
from motes.language.rules.pointwise_information import PointwiseInformation
from motes.language.rules.presence import Presence
from motes.language.rules.repetition import Repetition
from motes.language.rules.self_terminating import SelfTerminating
from motes.language.rules.stable_entropy import StableEntropy
from motes.language.rules.temperature import Temperature
from motes.language.rules.top_h import TopH
from motes.language.rules.top_k import TopK
from motes.language.rules.top_n_sigma import TopNSigma
from motes.language.rules.typical import Typical
from motes.language.speculation import SpeculativeGeneration, speculating
antidistillation = Antidistillation
basis_aware = BasisAware
bregman = Bregman
dynamic_temperature = DynamicTemperature
entropy_temperature = EntropyTemperature
epsilon = Epsilon
eta = Eta
frequency = Frequency
gamma_sampling = GammaSampling
green_list = GreenList
gumbel_watermark = GumbelWatermark
kl_temperature = KLTemperature
logit_bias = LogitBias
min_new_tokens = MinNewTokens
min_p = MinP
mirostat_1 = Mirostat1
mirostat_2 = Mirostat2
no_repeat = NoRepeat
nucleus = Nucleus
pointwise_information = PointwiseInformation
presence = Presence
prompt_guidance = PromptGuidance
repetition = Repetition
self_terminating = SelfTerminating
stable_entropy = StableEntropy
temperature = Temperature
top_h = TopH
top_k = TopK
top_n_sigma = TopNSigma
typical = Typical

__all__ = [
    "ByteModel",
    "Constraint",
    "DiscreteParticleFilter",
    "Generation",
    "LanguageModel",
    "Potential",
    "ResampleMove",
    "Rule",
    "SpeculativeGeneration",
    "TableModel",
    "TransformersModel",
    "antidistillation",
    "basis_aware",
    "both",
    "bregman",
    "canonical",
    "choices",
    "compress",
    "compression",
    "decompress",
    "dynamic_temperature",
    "entropy_temperature",
    "epsilon",
    "eta",
    "evaluation",
    "frequency",
    "gamma_sampling",
    "grammar",
    "green_list",
    "gumbel_watermark",
    "healed",
    "json_schema",
    "kl_temperature",
    "load",
    "logit_bias",
    "min_new_tokens",
    "min_p",
    "mirostat_1",
    "mirostat_2",
    "next_bytes",
    "no_repeat",
    "nucleus",
    "on_tokens",
    "particle_gibbs",
    "pointwise_information",
    "predicate",
    "presence",
    "processor",
    "prompt_guidance",
    "regex",
    "repetition",
    "reward_model",
    "rules",
    "search",
    "self_terminating",
    "source",
    "speculating",
    "speculation",
    "stable_entropy",
    "starts_with",
    "temperature",
    "top_h",
    "top_k",
    "top_n_sigma",
    "typical",
    "uncertainty",
]
