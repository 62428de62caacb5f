"""`bring_up` in a process of its own, so that it can be killed: `up_process.py PROJECT READY_AFTER_SECONDS`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from disk_ground import DiskGround
from stack_bench import plan_of, system

from envctl.errors import EnvctlError
from envctl.stack.operations import bring_up
from envctl.toolchain.tool import cache_dir

if __name__ == "__main__":
    project, ready_after = Path(sys.argv[1]), sys.argv[2]
    try:
        bring_up(plan_of(project), substrates=DiskGround(cache_dir()), realise=lambda: system(READY_AFTER=ready_after))
    except EnvctlError as error:
        sys.exit(f"{type(error).__name__}: {error.message}")
