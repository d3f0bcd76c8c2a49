"""Search the models of the protocol: `python -m tools.protocol_model`."""

import sys

from .check import main

sys.exit(main())
