from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the census and the site are shared by the tests of this room only

from chaos_site import adopting, site, small

__all__ = ["adopting", "site", "small"]
