"""Ways to choose some of many that are no resampling schemes: what is kept has its own weight or its own place.

A scheme draws parents whose children all weigh the same; a design here keeps things with known inclusion probabilities
(optimal, conditional Poisson, successive, Gumbel), leaves a part of the weights on them (tempered), holds one of them
fast (conditional), or works in many small populations at once (rows). None is found by its file.
"""
