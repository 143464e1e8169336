"""Write the golden runs anew, on purpose."""

import torch

from golden.record import write
from golden.runs import RUNS

torch.set_num_threads(1)
write(RUNS)
