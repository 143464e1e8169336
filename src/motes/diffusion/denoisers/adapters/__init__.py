"""Denoisers from models of other packages."""
