"""Write the golden runs and the list of public names anew, on purpose."""

import torch

from golden import names
from golden.record import write
from golden.runs import RUNS

torch.set_num_threads(1)
write(RUNS)
names.write()
