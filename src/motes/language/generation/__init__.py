"""Texts drawn token by token and weighted."""
