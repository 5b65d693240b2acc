"""The files of this folder use each other's helpers; it is no package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
