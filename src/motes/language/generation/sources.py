"""The sources of weighted generation."""

from motes.core.cite import cited

LEW = cited("lew2023", "weighted generation under a constraint")
LOULA = cited("loula2025", "the mass kept by a constraint as the weight")
