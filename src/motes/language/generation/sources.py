"""The sources of weighted generation."""

from motes.core.cite import Reference

LEW = Reference(
    "lew2023",
    "Lew, Zhi-Xuan, Grand, Mansinghka",
    2023,
    "Sequential Monte Carlo steering of large language models using probabilistic programs",
    "arXiv 2306.03081",
    "weighted generation under a constraint",
)
LOULA = Reference(
    "loula2025",
    "Loula, LeBrun, Du, Lipkin, Pasti, Grand, Liu, Emara, Freedman, Eisner, Cotterell, Mansinghka, Lew, Vieira, "
    "O'Donnell",
    2025,
    "Syntactic and semantic control of large language models via sequential Monte Carlo",
    "ICLR 2025",
    "the mass kept by a constraint as the weight",
)
