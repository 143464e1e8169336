"""Denoisers: networks, closed forms, energies, pretrained models, adapters."""
