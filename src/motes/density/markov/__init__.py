"""Many Markov chains: warmed up as a population, or at all temperatures at once."""
