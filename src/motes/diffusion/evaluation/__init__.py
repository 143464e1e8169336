"""Asking models, rewards and guidance about a population, once each and in parts."""
