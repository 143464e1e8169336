"""The rules of decoding, one a file: what each changes of the next-token law, and the mass that it keeps."""

# written by `make golden`
from motes.language.rule import rules
from motes.language.rules.antidistillation import Antidistillation
from motes.language.rules.antidistillation import moved
from motes.language.rules.basis_aware import BasisAware
from motes.language.rules.basis_aware import basis_of
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
from motes.language.rules.reading import by_name, parse, signature
from motes.language.rules.repetition import Repetition
from motes.language.rules.self_terminating import SelfTerminating
from motes.language.rules.stable_entropy import StableEntropy
from motes.language.rules.stable_entropy import decode_stable
from motes.language.rules.temperature import Temperature
from motes.language.rules.top_h import TopH
from motes.language.rules.top_k import TopK
from motes.language.rules.top_n_sigma import TopNSigma
from motes.language.rules.typical import Typical
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
