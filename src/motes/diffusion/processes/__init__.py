"""Noising processes and their times, one file each.

A new one is a new file with a `Process` under `@processes.register`; `motes.diffusion` exports them all.
"""

from motes.diffusion.processes.process import Process, processes

__all__ = ["Process", "processes"]
