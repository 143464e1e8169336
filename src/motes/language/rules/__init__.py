"""The rules of decoding, one a file: what each changes of the next-token law, and the mass that it keeps."""

from motes.language.rules.antidistillation import Antidistillation, antidistillation, moved
from motes.language.rules.basis_aware import BasisAware, basis_aware, basis_of
from motes.language.rules.bregman import Bregman, bregman
from motes.language.rules.dynamic_temperature import DynamicTemperature, dynamic_temperature
from motes.language.rules.entropy_temperature import EntropyTemperature, entropy_temperature
from motes.language.rules.epsilon import Epsilon, epsilon
from motes.language.rules.eta import Eta, eta
from motes.language.rules.frequency import Frequency, frequency
from motes.language.rules.gamma_sampling import GammaSampling, gamma_sampling
from motes.language.rules.green_list import GreenList, green_list
from motes.language.rules.guidance import PromptGuidance, prompt_guidance
from motes.language.rules.gumbel_watermark import GumbelWatermark, gumbel_watermark
from motes.language.rules.kl_temperature import KLTemperature, kl_temperature
from motes.language.rules.logit_bias import LogitBias, logit_bias
from motes.language.rules.min_new_tokens import MinNewTokens, min_new_tokens
from motes.language.rules.min_p import MinP, min_p
from motes.language.rules.mirostat import Mirostat1, Mirostat2, mirostat_1, mirostat_2
from motes.language.rules.no_repeat import NoRepeat, no_repeat
from motes.language.rules.nucleus import Nucleus, nucleus
from motes.language.rules.pointwise_information import PointwiseInformation, pointwise_information
from motes.language.rules.presence import Presence, presence
from motes.language.rules.registry import by_name, parse, rules, signature
from motes.language.rules.repetition import Repetition, repetition
from motes.language.rules.self_terminating import SelfTerminating, self_terminating
from motes.language.rules.stable_entropy import StableEntropy, decode_stable, stable_entropy
from motes.language.rules.temperature import Temperature, temperature
from motes.language.rules.top_h import TopH, top_h
from motes.language.rules.top_k import TopK, top_k
from motes.language.rules.top_n_sigma import TopNSigma, top_n_sigma
from motes.language.rules.typical import Typical, typical

__all__ = [
    "Antidistillation",
    "BasisAware",
    "Bregman",
    "DynamicTemperature",
    "EntropyTemperature",
    "Epsilon",
    "Eta",
    "Frequency",
    "GammaSampling",
    "GreenList",
    "GumbelWatermark",
    "KLTemperature",
    "LogitBias",
    "MinNewTokens",
    "MinP",
    "Mirostat1",
    "Mirostat2",
    "NoRepeat",
    "Nucleus",
    "PointwiseInformation",
    "Presence",
    "PromptGuidance",
    "Repetition",
    "SelfTerminating",
    "StableEntropy",
    "Temperature",
    "TopH",
    "TopK",
    "TopNSigma",
    "Typical",
    "antidistillation",
    "basis_aware",
    "basis_of",
    "bregman",
    "by_name",
    "decode_stable",
    "dynamic_temperature",
    "entropy_temperature",
    "epsilon",
    "eta",
    "frequency",
    "gamma_sampling",
    "green_list",
    "gumbel_watermark",
    "kl_temperature",
    "logit_bias",
    "min_new_tokens",
    "min_p",
    "mirostat_1",
    "mirostat_2",
    "moved",
    "no_repeat",
    "nucleus",
    "parse",
    "pointwise_information",
    "presence",
    "prompt_guidance",
    "repetition",
    "rules",
    "self_terminating",
    "signature",
    "stable_entropy",
    "temperature",
    "top_h",
    "top_k",
    "top_n_sigma",
    "typical",
]
