"""`fsdm schema`: print the JSON Schema of a want and of READY."""

import json
from argparse import ArgumentParser, Namespace

EXAMPLES = """\
fsdm schema want
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("document", nargs="?", choices=["want", "ready"], help="only this one")


def run(arguments: Namespace) -> None:
    from fsdm.model.documents import DataChunk, Manifest

    schemas = {"want": DataChunk.want_schema(), "ready": Manifest.model_json_schema()}
    shown = schemas[arguments.document] if arguments.document else schemas
    print(json.dumps(shown, indent=None if arguments.json else 2))
