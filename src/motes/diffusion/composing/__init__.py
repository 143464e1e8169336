"""Products of powers of models, and the weights that make them right."""
