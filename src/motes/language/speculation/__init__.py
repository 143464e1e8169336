"""Speculation: several tokens a call of the model, with its law left as it is.

`speculating(model)` is for use; the schemes that verify random drafts are functions of laws, one file each.
"""

from motes.language.speculation import block, coupled, optimal, recursive, sequential, single, subset
from motes.language.speculation.drafts import Draft, ModelDraft, PromptLookup
from motes.language.speculation.prefetch import Speculating, speculating
from motes.language.speculation.speculative_generation import SpeculativeGeneration

__all__ = [
    "Draft",
    "ModelDraft",
    "PromptLookup",
    "Speculating",
    "SpeculativeGeneration",
    "block",
    "coupled",
    "optimal",
    "recursive",
    "sequential",
    "single",
    "speculating",
    "subset",
]
