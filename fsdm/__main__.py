"""`python -m fsdm` is `fsdm`."""

from __future__ import annotations

import sys

from fsdm.cli.main import main

sys.exit(main())
