"""Samplers that walk back from noise, weighted or guided."""
