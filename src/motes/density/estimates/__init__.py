"""Numbers from finished runs: evidence, discrepancies, sensitivities."""
