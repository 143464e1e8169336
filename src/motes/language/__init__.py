"""Language models: texts under rules, constraints and rewards, with weights that make them right."""

from motes.language import compression, evaluation, rules, search, source, speculation, uncertainty
from motes.language.bytewise.bytes import ByteModel, next_bytes
from motes.language.bytewise.healing import healed
from motes.language.compression import compress, decompress
from motes.language.constraint import Constraint
from motes.language.constraints import both, canonical, choices, grammar, json_schema, predicate, regex, starts_with
from motes.language.generation.discrete_filter import Expansion
from motes.language.generation.generation import Generation
from motes.language.generation.particle_gibbs import particle_gibbs
from motes.language.generation.potential import Potential, on_tokens, reward_model
from motes.language.generation.resample_move import Rewriting
from motes.language.models.hugging_face import TransformersModel, load
from motes.language.models.model import LanguageModel
from motes.language.models.table import TableModel
from motes.language.processor import processor
from motes.language.rule import Rule
from motes.language.rules import (
    antidistillation,
    basis_aware,
    bregman,
    dynamic_temperature,
    entropy_temperature,
    epsilon,
    eta,
    frequency,
    gamma_sampling,
    green_list,
    gumbel_watermark,
    kl_temperature,
    logit_bias,
    min_new_tokens,
    min_p,
    mirostat_1,
    mirostat_2,
    no_repeat,
    nucleus,
    pointwise_information,
    presence,
    prompt_guidance,
    repetition,
    self_terminating,
    stable_entropy,
    temperature,
    top_h,
    top_k,
    top_n_sigma,
    typical,
)
from motes.language.speculation import Drafted, speculating

__all__ = [
    "ByteModel",
    "Constraint",
    "Drafted",
    "Expansion",
    "Generation",
    "LanguageModel",
    "Potential",
    "Rewriting",
    "Rule",
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
