"""`mtlrank train` up to its first step: prints when that was done, and ends as if killed.

Usage: python -m train.first_step PROJECT
"""

import os
import sys
import time
from typing import Any

from mtlrank_cli.main import main
from torch.optim.optimizer import register_optimizer_step_post_hook


def _stop(*_: Any) -> None:
    print(time.time(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    register_optimizer_step_post_hook(_stop)
    sys.argv = ["mtlrank", "--project", sys.argv[1], "train", "--tasks", "ctr,cvr"]
    main()
