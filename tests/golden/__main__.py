"""Write the golden runs and the public names anew, on purpose."""

import torch

from golden import doors, names
from golden.record import write
from golden.runs import RUNS

torch.set_num_threads(1)
write(RUNS)
doors.write()
names.write()
