"""Chunks and datasets by what people call them, at each verb."""

from pathlib import Path

import pytest

from fsdm import DataChunk, DataManager
from fsdm.model.layout import Layout
from tests.support import Source, fsdm, fsdm_json
from tests.support.chunks import bring, chunk_dir, put_chunk, put_want, touch_delete

DATASET = "17ab" + "d" * 60


@pytest.fixture
def chunk(dm: DataManager, data_dir: Path, source: Source) -> DataChunk:
    """An available chunk of a dataset that has a name."""
    chunk = source.chunk(dataset=DATASET, start=0, end=35)
    bring(dm, chunk)
    (data_dir / "datasets.toml").write_text(f'ethereum = "{DATASET}"\n')
    return chunk


@pytest.mark.parametrize("verb", ["explain", "status", "wait", "verify", "holders"])
def test_a_chunk_is_taken_by_its_first_digits(data_dir: Path, chunk: DataChunk, verb: str) -> None:
    whole, short = (fsdm(verb, "-d", data_dir, name) for name in (chunk.id, chunk.id[:12]))
    assert (short.returncode, short.stdout) == (whole.returncode, whole.stdout) != (3, "")
    unknown = fsdm(verb, "-d", data_dir, "0123456789ab")
    assert (unknown.returncode, unknown.stderr.splitlines()[0]) == (3, "fsdm: no chunk begins with 0123456789ab")
    for text in ("abc", "XYZW", "../x"):
        done = fsdm(verb, "-d", data_dir, text)
        assert done.returncode == 2
        assert done.stderr.startswith(f"fsdm: ID: {text!r} is no id\n")


def test_delete_and_retry_take_first_digits_too(dm: DataManager, data_dir: Path, chunk: DataChunk) -> None:
    assert fsdm_json("delete", "-d", data_dir, chunk.id[:8], chunk.id)["deleted"] == [chunk.id]
    dm.wait(chunk.id)
    dm.close()
    put_want(data_dir, chunk)
    assert fsdm_json("retry", "-d", data_dir, chunk.id[:4]) == {"retried": [chunk.id]}


def test_ambiguous_digits_change_nothing_and_list_the_candidates(layout: Layout, data_dir: Path) -> None:
    ids = ["abcd" + str(n) * 60 for n in range(3)]
    for number, chunk_id in enumerate(ids):
        put_chunk(layout, chunk_id=chunk_id, start=number, end=number + 1)
    done = fsdm("delete", "-d", data_dir, "abcd")
    assert (done.returncode, done.stdout) == (2, "")
    assert "3 chunks begin with abcd" in done.stderr
    assert all(chunk_id in done.stderr for chunk_id in ids)
    assert list((data_dir / "delete").iterdir()) == []


@pytest.mark.parametrize("name", [DATASET, "17ab", "ethereum"])
def test_a_dataset_is_taken_by_its_first_digits_or_its_name(data_dir: Path, chunk: DataChunk, name: str) -> None:
    assert fsdm("find", "-d", data_dir, name, 7).stdout == f"{chunk_dir(data_dir, chunk)}/data\n"
    assert fsdm("hold", "-d", data_dir, name, 7, "--", "sh", "-c", "echo $FSDM_CHUNK_ID").stdout == f"{chunk.id}\n"
    assert [one["dataset_id"] for one in fsdm_json("map", "-d", data_dir, name)["datasets"]] == [DATASET]


def test_a_name_is_shown_unless_names_are_off(data_dir: Path, chunk: DataChunk) -> None:
    touch_delete(data_dir, "0" * 64)
    assert fsdm_json("status", "-d", data_dir, chunk.id)["chunks"][0]["dataset_name"] == "ethereum"
    assert fsdm_json("ls", "-d", data_dir)[0]["dataset_name"] == "ethereum"
    assert fsdm_json("map", "-d", data_dir)["datasets"][0]["dataset_name"] == "ethereum"
    assert fsdm("ls", "-d", data_dir, "--datasets").stdout == f"{DATASET}\t1\tethereum\n"
    titled = f"ethereum ({DATASET})"
    for verb in (["status"], ["map"], ["map", "--svg", "-"], ["map", "--html", "-"], ["explain", chunk.id]):
        shown = titled if verb != ["status"] else "\tethereum\n"
        assert shown in fsdm(*verb, "-d", data_dir).stdout, verb
        assert "ethereum" not in fsdm(*verb, "-d", data_dir, "--names", "off").stdout, verb
    off = fsdm("find", "-d", data_dir, "--names", "off", "ethereum", 7)
    assert (off.returncode, "names are off" in off.stderr) == (2, True)
    assert "did you mean ethereum?" in fsdm("find", "-d", data_dir, "etherum", 7).stderr


def test_names_that_cannot_be_taken_keep_nobody_from_looking(data_dir: Path, chunk: DataChunk) -> None:
    (data_dir / "datasets.toml").write_text("ethereum")
    told = f"fsdm: {data_dir}/datasets.toml: is no TOML"
    shown = fsdm("status", "-d", data_dir)
    assert (shown.returncode, shown.stderr.startswith(told)) == (0, True)
    assert fsdm("find", "-d", data_dir, DATASET, 7).returncode == 0
    refused = fsdm("find", "-d", data_dir, "ethereum", 7)
    assert (refused.returncode, refused.stderr.startswith(told)) == (2, True)
    assert "--names off" in refused.stderr
