"""`fsdm find`: print the path of the chunk that holds a block."""

from argparse import Namespace

from fsdm.cli.arguments import open_client
from fsdm.cli.ids import add_block, find_ref
from fsdm.cli.output import show

EXAMPLES = """\
fsdm find -d data DATASET 17000000
"""
add_arguments = add_block


def run(arguments: Namespace) -> None:
    with open_client(arguments) as client, find_ref(client, arguments) as ref:
        place = {"dataset_id": ref.dataset_id, "start": ref.block_range.start, "end": ref.block_range.stop}
        show(arguments, {"id": ref.id, **place, "path": str(ref.path)}, [str(ref.path)])
