"""Whether the last bits of this machine's matrix products depend on where their operands lie."""

from __future__ import annotations

import torch


def place_changes_bits() -> bool:
    """Whether they do for any of some sizes, if an operand begins 8 bytes later or lies column by column."""
    generator = torch.Generator().manual_seed(0)
    for n, k, m in ((256, 3, 3), (40, 32, 32), (256, 20, 1), (64, 9, 9), (8, 64, 128)):
        a = torch.randn(n, k, generator=generator, dtype=torch.float64)
        b = torch.randn(k, m, generator=generator, dtype=torch.float64)
        shifted = torch.cat([a.new_zeros(1), a.flatten()])[1:].view(n, k)
        padded = torch.cat([a[:, :1], a], 1)[:, 1:]
        for x, y in ((shifted, b), (padded, b), (a, b.T.contiguous().T), (padded, b.T.contiguous().T)):
            if not torch.equal(a @ b, x @ y):
                return True
    return False
