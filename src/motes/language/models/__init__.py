"""Language models and their caches."""
