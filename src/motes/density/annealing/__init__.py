"""Samplers that go from the reference to the posterior along temperatures or data."""
