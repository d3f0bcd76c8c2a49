"""`python -m fsdm` is `fsdm`."""

from __future__ import annotations

import sys

from fsdm.cli import main

sys.exit(main())
