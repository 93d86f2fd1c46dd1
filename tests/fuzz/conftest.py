"""What all tests of this folder need: Linux, for its limits of memory, and no lines on standard error."""

from __future__ import annotations

import sys

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]
