"""Ways to draw next tokens, and what the weights gain by each."""
