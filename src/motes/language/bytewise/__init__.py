"""Models read byte by byte."""
