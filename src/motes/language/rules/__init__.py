"""The rules of decoding, one a file: what each changes of the next-token law, and the mass that it keeps."""

from motes.language.rules.nucleus import Nucleus, nucleus
from motes.language.rules.temperature import Temperature, temperature
from motes.language.rules.top_k import TopK, top_k

__all__ = ["Nucleus", "Temperature", "TopK", "nucleus", "temperature", "top_k"]
