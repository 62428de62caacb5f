"""The plug-in with the disk substrate; what a plain `pulumi` finds on PATH in these tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from disk_ground import DiskGround

from envctl.stack_provider.server import main
from envctl.toolchain.tool import cache_dir

if __name__ == "__main__":
    main(DiskGround(cache_dir()))
