"""Papers on which several samplers of diffusion models rest, each written out once."""

from motes.core.cite import Reference

SINGHAL = Reference(
    "singhal2025",
    "Singhal, Horvitz, Teehan, Ren, Yu, McKeown, Ranganath",
    2025,
    "A General Framework for Inference-time Scaling and Steering of Diffusion Models",
    "arXiv 2501.06848",
)
SONG = Reference(
    "song2021score",
    "Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole",
    2021,
    "Score-Based Generative Modeling through Stochastic Differential Equations",
    "International Conference on Learning Representations",
)
