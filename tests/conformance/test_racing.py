"""A bounded churn: the client asks while its holders check the bytes that they hold."""

import hashlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fsdm import DataManager
from tests.conformance.clients import Client
from tests.support import PATIENCE_S, Source, expected
from tests.support.chunks import put_want, touch_delete

INTENTS = 12
HOLDERS = 2
LOOKS = 10
READ = f'for n in {" ".join(map(str, range(LOOKS)))}; do cat "$FSDM_CHUNK_PATH"/* | sha256sum || exit 9; done'


def test_holder_sees_no_change_in_a_race_with_the_reconciler(client: Client, data_dir: Path, source: Source) -> None:
    chunks = [source.chunk(start=n, end=n + 1) for n in range(3)]
    digests = [
        hashlib.sha256(b"".join(data for _, data in sorted(expected(chunk, source).items()))).hexdigest()
        for chunk in chunks
    ]
    over = threading.Event()

    def hold(seed: int) -> int:
        """Hold one after the other until it is over, and once more; how often one was held."""
        throw, held, last = random.Random(seed), 0, False
        while not last:
            last, block = over.is_set(), throw.randrange(len(chunks))
            done = client.run("hold", chunks[block].dataset_id, block, "--", "sh", "-c", READ)
            assert done.returncode in {0, 3}, done.stderr
            if done.returncode == 0:
                assert [line.split()[0] for line in done.stdout.splitlines()] == [digests[block]] * LOOKS, done.stderr
                held += 1
        return held

    with DataManager(data_dir) as dm, ThreadPoolExecutor(HOLDERS) as pool:
        for chunk in chunks:
            dm.download_chunk(chunk)
        dm.wait_converged(PATIENCE_S)
        holders = [pool.submit(hold, seed) for seed in range(HOLDERS)]
        throw = random.Random(11)
        try:
            for n in range(INTENTS):
                chunk = throw.choice(chunks)
                match n % 4:
                    case 0:
                        client.delete(chunk.id)
                    case 1:
                        client.want(chunk.to_json())
                    case 2:
                        touch_delete(data_dir, chunk.id)
                    case 3:
                        put_want(data_dir, chunk)
            for chunk in chunks:
                client.want(chunk.to_json())
            dm.wait_converged(PATIENCE_S)
        finally:
            over.set()
        assert sum(holder.result() for holder in holders) > 0
        assert client.list() == [chunk.id for chunk in chunks]
