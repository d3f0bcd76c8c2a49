"""`fsdm schema`: print the JSON Schema of a want and of READY."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from fsdm.model.errors import EXIT_OK

if TYPE_CHECKING:
    import argparse


EXAMPLES: Final = """\
fsdm schema want
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("document", nargs="?", choices=["want", "ready"], help="only this one")


def run(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of the documents that others write and read."""
    from fsdm.model.documents import DataChunk, Manifest

    schemas = {"want": DataChunk.want_schema(), "ready": Manifest.model_json_schema()}
    print(
        json.dumps(schemas[arguments.document] if arguments.document else schemas, indent=None if arguments.json else 2)
    )
    return EXIT_OK
