"""The command line, from outside: arguments, output, exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm import Client, DataChunk, DataManager
from fsdm.cli.commands import VERBS, wait
from fsdm.cli.main import main
from fsdm.model.layout import Layout
from tests.support import (
    FSDM,
    PATIENCE_S,
    Source,
    begun,
    eventually,
    fsdm,
    fsdm_json,
    kill_group,
    owner,
    reconciling,
    running,
    shell_holding,
)
from tests.support.chunks import a_want, an_id, chunk_dir, entries, failure, flip, put_chunk, put_want, touch_delete
from tests.support.servers import Host, answering


@pytest.fixture
def chunk(data_dir: Path, source: Source) -> Iterator[DataChunk]:
    """A chunk that is available, in a directory that is reconciled."""
    chunk = source.chunk(start=0, end=35)
    with DataManager(data_dir) as dm:
        dm.download_chunk(chunk)
        dm.wait(chunk.id, PATIENCE_S)
        yield chunk


def test_every_verb_has_help_with_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit, match=r"\A0\Z"):
            main([verb, "--help"])
        said = capsys.readouterr().out
        assert "examples:" in said
        assert "exit codes:" in said


def test_the_data_directory_is_an_option_anywhere_or_a_variable(data_dir: Path, chunk: DataChunk) -> None:
    expected = chunk.id + "\n"
    assert fsdm("-d", data_dir, "ls").stdout == expected
    assert fsdm("ls", "-d", data_dir).stdout == expected
    assert fsdm("ls", FSDM_DATA_DIR=str(data_dir)).stdout == expected
    assert fsdm("ls", "-d", data_dir, FSDM_DATA_DIR="/nowhere").stdout == expected
    assert json.loads(fsdm("--json", "ls", "-d", data_dir).stdout)[0]["id"] == chunk.id


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["ls"], ["no-such-verb"], ["find", "-d", ".", "x", "0"], ["find", "-d", ".", "a" * 64, "zero"]),
        *(["find", "-d", ".", "a" * 64, "-1"], ["delete", "-d", ".", "../x"], ["hold", "-d", ".", "a" * 64, "0"]),
        *(["ls", "-d", ".", "--", "true"], ["run", "-d", ".", "--jobs", "0"], ["run", "-d", ".", "--max-bytes", "0"]),
        *(["run", "-d", ".", "--keep-free", "10 G"], ["run", "-d", ".", "--durability", "some"]),
    ],
    ids=str,
)
def test_wrong_usage_ends_with_2(arguments: list[str], layout: object, data_dir: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "FSDM_DATA_DIR"}
    done = subprocess.run(
        [*FSDM, *arguments], cwd=data_dir, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert done.stderr or not arguments
    assert "Traceback" not in done.stderr


def test_a_directory_that_is_missing_foreign_or_too_new_ends_with_6(tmp_path: Path) -> None:
    for verb in (["ls"], ["status"], ["delete", an_id()], ["wait"], ["find", "a" * 64, "0"]):
        done = fsdm("-d", tmp_path / "missing", *verb)
        assert done.returncode == 6, verb
        assert "is not a data directory: it does not exist" in done.stderr
    assert not (tmp_path / "missing").exists()
    (tmp_path / "fsdm.json").write_text('{"format": 2}')
    for verb in ("ls", "run"):
        done = fsdm("-d", tmp_path, verb)
        assert done.returncode == 6
        assert "format 2, this version knows 1" in done.stderr
    assert entries(tmp_path) == ["fsdm.json"]


def test_errors_are_json_where_json_is_asked_for(tmp_path: Path) -> None:
    error = json.loads(fsdm("ls", "--json", "-d", tmp_path / "x").stderr)["error"]
    assert error["type"] == "NoDataDirectoryError"
    assert error["hint"]


def test_find_prints_the_path_and_ends_with_3_beyond_the_end(data_dir: Path, chunk: DataChunk) -> None:
    assert fsdm("find", "-d", data_dir, chunk.dataset_id, 34).stdout == f"{chunk_dir(data_dir, chunk)}/data\n"
    assert fsdm_json("find", "-d", data_dir, chunk.dataset_id, 0)["id"] == chunk.id
    done = fsdm("find", "-d", data_dir, chunk.dataset_id, 35)
    assert (done.returncode, done.stdout) == (3, "")


def test_ls_long_and_json_tell_where_chunks_stand(data_dir: Path, chunk: DataChunk) -> None:
    place = f"{chunk.dataset_id}\t0\t35\t{chunk.id}"
    assert fsdm("ls", "--long", "-d", data_dir).stdout == f"{place}\t2000\n"
    assert fsdm("ls", "-lh", "-d", data_dir).stdout == f"{place}\t2000 bytes\n"
    assert fsdm("ls", "-h", "-d", data_dir).stdout == f"{chunk.id}\t2000 bytes\n"
    (listed,) = fsdm_json("ls", "-d", data_dir)
    known = {"id": chunk.id, "dataset_id": chunk.dataset_id, "start": 0, "end": 35}
    assert {key: listed[key] for key in known} == known
    (seen,) = fsdm_json("status", "-d", data_dir)["chunks"]
    assert listed == {key: seen[key] for key in listed.keys() & seen.keys()} | {"unproven": []}


def test_ls_and_status_show_one_dataset_or_state_alone(layout: Layout, data_dir: Path) -> None:
    one, other = put_chunk(layout, dataset="17ab" + "0" * 60), put_chunk(layout, dataset="e" * 64)
    wanted = put_want(data_dir, a_want(dataset_id="e" * 64))
    assert fsdm("ls", "-d", data_dir, "17ab").stdout == f"{one.chunk_id}\n"
    assert fsdm("ls", "-d", data_dir, "e" * 64, "--datasets").stdout == f"{'e' * 64}\t1\t\n"
    shown = fsdm_json("status", "-d", data_dir, "--dataset", "eeee")["chunks"]
    assert {chunk["id"] for chunk in shown} == {other.chunk_id, wanted.id}
    states = ("--state", "wanted", "--state", "failed")
    assert [one["id"] for one in fsdm_json("status", "-d", data_dir, *states)["chunks"]] == [wanted.id]
    assert fsdm("status", "-d", data_dir, "--state", "none").returncode == 2
    assert fsdm("ls", "-d", data_dir, "ffff").returncode == 3
    lines = fsdm("status", "-d", data_dir, "-h", "--state", "available").stdout.splitlines()
    assert [line.split("\t")[3] for line in lines] == ["100 bytes", "100 bytes"]


def test_status_tells_the_process_that_reconciles_in_fields_too(data_dir: Path, chunk: DataChunk) -> None:
    seen = fsdm_json("status", "-d", data_dir)
    assert seen["reconciler_process"].items() <= json.loads(seen["reconciler"]).items()
    assert seen["reconciler_process"]["pid"] == os.getpid()


def test_hold_holds_the_chunk_as_long_as_its_command_runs(data_dir: Path, chunk: DataChunk) -> None:
    script = "echo $FSDM_CHUNK_PATH; read x; ls $FSDM_CHUNK_PATH; exit 7"
    command = [*FSDM, "hold", "-d", str(data_dir), chunk.dataset_id, "0", "--", "sh", "-c", script]
    with begun(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == f"{chunk_dir(data_dir, chunk)}/data\n"
        touch_delete(data_dir, chunk.id)
        eventually(lambda: fsdm_json("status", "-d", data_dir)["chunks"][0]["state"] == "retiring")
        assert fsdm("wait", "-d", data_dir, chunk.id, "--timeout", "0.2").returncode == 4
        out, _ = holder.communicate("\n", timeout=PATIENCE_S)
        assert out.split() == sorted(chunk.files)
        assert holder.returncode == 7
    assert fsdm("wait", "-d", data_dir, chunk.id, "--timeout", "20").stdout == f"{chunk.id}\tgone\n"


def test_hold_takes_a_range_and_passes_on_all_its_chunks(layout: Layout, data_dir: Path) -> None:
    places = [put_chunk(layout, start=start, end=start + 10) for start in (0, 10, 30)]
    paths = [f"{layout.path(place)}/data" for place in places]
    free = "for path in $FSDM_CHUNK_PATHS; do flock -n -x $path/.. true && echo free; done"
    script = f'echo "$FSDM_CHUNK_PATHS"; {free}; exit 7'
    hold = ("hold", "-d", data_dir, "d" * 64)
    done = fsdm(*hold, "5-20", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (7, paths[:2], "")
    refused = fsdm(*hold, "5-35", "--", "echo", "run")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "no available chunk holds [20, 30)" in refused.stderr
    partly = fsdm(*hold, "5-50", "--partial", "--", "sh", "-c", script)
    assert (partly.returncode, partly.stdout.splitlines()) == (7, paths)
    told = [f"fsdm: no available chunk holds {gap}" for gap in ("[20, 30)", "[40, 50)")]
    assert partly.stderr.splitlines() == told
    for wrong in ("20-5", "5-", "a-b", "-5"):
        assert fsdm(*hold, wrong, "--", "true").returncode == 2, wrong


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["stauts"], "fsdm: error: there is no verb 'stauts': did you mean status?"),
        (["-d", "x", "xyzzy"], "fsdm: error: there is no verb 'xyzzy': `fsdm --help` lists them"),
        (["hold", "d", "7", "ls", "-l"], "fsdm hold: error: put -- before the command: … -- ls -l"),
        (["ls", "--frob"], "fsdm ls: error: unrecognized arguments: --frob"),
        (["--frob"], "fsdm: error: unrecognized arguments: --frob"),
    ],
)
def test_a_slip_of_the_command_line_is_told_with_what_was_meant(arguments: list[str], told: str) -> None:
    done = fsdm(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == told


def test_release_says_what_it_has_released(layout: Layout, data_dir: Path) -> None:
    assert fsdm("release", "-d", data_dir).stderr == "fsdm: no deletes were held back\n"
    (data_dir / "BRAKE").write_text('{"held_back": 150}')
    assert fsdm("release", "-d", data_dir).stderr == "fsdm: 150 deletes released\n"
    assert fsdm_json("release", "-d", data_dir) == {"released": True, "held_back": 150, "list": None}
    (data_dir / "BRAKE").write_text('{"held_back": "many"}')
    assert fsdm("release", "-d", data_dir).returncode == 0


def test_want_takes_files_stdin_and_json_lines_and_goes_on_after_a_bad_one(
    data_dir: Path, source: Source, tmp_path: Path, layout: object
) -> None:
    one, two, three, four = (source.chunk(start=n, end=n + 1) for n in range(4))
    lines = two.to_json() + b'{"id": "bad"}\n' + three.to_json()
    nameless = {key: value for key, value in json.loads(four.to_json()).items() if key != "id"}
    (tmp_path / "one.json").write_text(json.dumps(json.loads(one.to_json()), indent=2))
    (tmp_path / four.id).write_text(json.dumps(nameless))
    done = fsdm("want", "-d", data_dir, "--json", tmp_path / "one.json", "-", tmp_path / four.id, stdin=lines)
    assert done.returncode == 2
    assert "-:2: id: must be 64 lower-case hex digits" in done.stderr
    assert json.loads(done.stdout) == {"wanted": [one.id, two.id, three.id, four.id]}
    assert fsdm("want", "-d", data_dir, tmp_path / "none").returncode == 2
    assert fsdm("run", "--once", "-d", data_dir).returncode == 0
    assert sorted(fsdm("ls", "-d", data_dir).stdout.split()) == sorted([one.id, two.id, three.id, four.id])
    assert fsdm("delete", "-d", data_dir, one.id, two.id).returncode == 0
    assert sorted(fsdm("ls", "-d", data_dir).stdout.split()) == sorted([three.id, four.id])


def test_a_wrong_want_is_named_and_the_others_are_placed(data_dir: Path, source: Source, layout: object) -> None:
    good = source.chunk()
    large = source.chunk().to_json().rstrip().removesuffix(b"}") + b',"x":"' + b"y" * 2**20 + b'"}'
    done = fsdm("want", "-d", data_dir, "-", stdin=large + b'\n{"id":1}\n' + good.to_json())
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("fsdm: -:1: files: the want has ")
    assert second.startswith("fsdm: -:2: id: ")
    assert entries(data_dir / "want") == [good.id]


def test_a_mistyped_key_is_told_and_refused_where_all_are_to_be_known(
    data_dir: Path, source: Source, layout: Layout
) -> None:
    good = source.chunk(files=1)
    mistyped = json.loads(a_want(note="ours").to_json())
    mistyped["files"]["blocks.parquet"]["sha265"] = "a" * 64
    lines = good.to_json() + json.dumps(mistyped).encode()
    told = "fsdm: -:2: the key 'files.blocks.parquet.sha265' is not known: did you mean sha256?\n"
    done = fsdm("want", "-d", data_dir, "-", stdin=lines)
    assert (done.returncode, done.stderr) == (0, told)
    assert entries(data_dir / "want") == sorted([good.id, mistyped["id"]])
    for one in entries(data_dir / "want"):
        (data_dir / "want" / one).unlink()
    strict = fsdm("want", "-d", data_dir, "--strict", "-", stdin=lines)
    assert (strict.returncode, strict.stderr) == (2, "fsdm: -:2: the key 'note' is not known\n")
    assert entries(data_dir / "want") == [good.id]


def test_sync_tells_mistyped_keys_of_a_list_and_refuses_it_where_all_are_to_be_known(
    data_dir: Path, layout: Layout
) -> None:
    wants = [a_want(block_rang=[1, 2]) for _ in range(8)]
    lines = b"".join(want.to_json() for want in wants)
    refused = fsdm("sync", "-d", data_dir, "--strict", "-", stdin=lines)
    assert refused.returncode == 2
    assert "standard input:1: the key 'block_rang' is not known: did you mean block_range?" in refused.stderr
    assert entries(data_dir / "want") == []
    done = fsdm("sync", "-d", data_dir, "-", stdin=lines)
    assert done.returncode == 0
    assert [line.split(": ")[1] for line in done.stderr.splitlines()[:-1]] == [
        f"standard input:{n}" for n in range(1, 6)
    ]
    assert done.stderr.splitlines()[-1] == "fsdm: more lines have keys that are not known"
    assert len(entries(data_dir / "want")) == 8


def test_a_line_that_is_no_json_is_named_once_and_as_an_editor_counts_it(
    data_dir: Path, source: Source, tmp_path: Path, layout: object
) -> None:
    lines, document = tmp_path / "lines", tmp_path / "document"
    lines.write_bytes(source.chunk().to_json() + b'\n{"id": }\n')
    document.write_text('{\n"id": }')
    told = fsdm("want", "-d", data_dir, lines, document).stderr.splitlines()
    assert re.fullmatch(rf"fsdm: {lines}:3: Invalid JSON: .* at column 8", told[0])
    assert re.fullmatch(rf"fsdm: {document}: Invalid JSON: .* at line 2 column 7", told[1])


def test_run_once_converges_and_ends_with_4_if_something_cannot(data_dir: Path, source: Source, layout: object) -> None:
    good, missing, damaged = source.chunk(), source.chunk(start=10, end=20), source.chunk(start=20, end=30)
    source.fault(f"/{missing.id}/blocks.parquet", status=404)
    for one in (good, missing, damaged):
        put_want(data_dir, one)
    (data_dir / "want" / damaged.id).write_bytes(damaged.to_json()[:-20])
    (data_dir / "want" / "stray").mkdir()
    done = fsdm("run", "--once", "-d", data_dir)
    assert done.returncode == 4
    assert f"{missing.id}: " in done.stderr
    assert "HTTP 404" in done.stderr
    assert f"{damaged.id}: Invalid JSON" in done.stderr
    assert f"{data_dir}/want/stray: " in done.stderr
    assert fsdm("ls", "-d", data_dir).stdout.split() == [good.id]
    assert entries(data_dir / "want") == sorted([missing.id, damaged.id, "stray"])


def test_run_once_says_what_refs_hold(data_dir: Path, source: Source, layout: object) -> None:
    chunk = source.chunk()
    put_want(data_dir, chunk)
    assert fsdm("run", "--once", "-d", data_dir).returncode == 0
    touch_delete(data_dir, chunk.id)
    with shell_holding(chunk_dir(data_dir, chunk)) as holder:
        done = fsdm("run", "--once", "-d", data_dir)
        assert done.returncode == 4
        assert f"{chunk.id}: refs hold it" in done.stderr
        kill_group(holder)
    assert fsdm("run", "--once", "-d", data_dir).returncode == 0
    assert not chunk_dir(data_dir, chunk).exists()


def test_run_once_is_stopped_by_a_signal(data_dir: Path, source: Source, layout: object) -> None:
    chunk = source.chunk()
    stall = source.fault(f"/{chunk.id}/blocks.parquet", stall_at=5)
    put_want(data_dir, chunk)
    with running("run", "--once", "-d", data_dir) as process:
        assert stall.stalled.wait(PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 4
    assert entries(data_dir / "want") == [chunk.id]


def test_run_tells_what_happens_a_line_an_event(data_dir: Path, source: Source) -> None:
    chunk = source.chunk()
    with reconciling(data_dir, "--json") as process:
        put_want(data_dir, chunk)
        eventually(lambda: chunk_dir(data_dir, chunk).exists() and not entries(data_dir / "want"))
        process.terminate()
        out, _ = process.communicate(timeout=PATIENCE_S)
    kinds = [json.loads(line)["kind"] for line in out.splitlines()]
    assert kinds == ["started", "file", "file", "available"]


def test_an_output_that_knows_no_emoji_does_not_stop_the_reconciler(
    data_dir: Path, source: Source, layout: object
) -> None:
    chunk = source.chunk()
    put_want(data_dir, chunk)
    done = fsdm("run", "--once", "-d", data_dir, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "available" in done.stderr


def test_status_shows_every_state_and_who_reconciles(data_dir: Path, chunk: DataChunk, source: Source) -> None:
    missing = source.chunk(start=50, end=60)
    source.fault(f"/{missing.id}/blocks.parquet", status=410)
    put_want(data_dir, missing)
    eventually(lambda: entries(data_dir / "failed"))
    seen = fsdm_json("status", "-d", data_dir)
    states = {one["id"]: one["state"] for one in seen["chunks"]}
    assert states == {chunk.id: "available", missing.id: "failed"}
    assert json.loads(seen["reconciler"])["pid"] == os.getpid() == owner(data_dir)
    done = fsdm("status", "-d", data_dir, missing.id)
    assert "HTTP 410" in done.stdout
    assert chunk.id not in done.stdout
    assert fsdm("status", "-d", data_dir, an_id()).returncode == 3


def test_wait_for_everything_and_for_one(data_dir: Path, chunk: DataChunk, source: Source) -> None:
    assert fsdm_json("wait", "-d", data_dir) == {"converged": True, "chunks": {}}
    assert fsdm_json("wait", "-d", data_dir, chunk.id) == {"converged": True, "chunks": {chunk.id: "available"}}
    stalled = source.chunk(start=50, end=60)
    source.fault(f"/{stalled.id}/blocks.parquet", stall_at=5)
    put_want(data_dir, stalled)
    done = fsdm("wait", "-d", data_dir, "--timeout", "0.1")
    assert done.returncode == 4
    assert "1 intent is pending" in done.stderr


@pytest.mark.parametrize("verb", ["status", "explain", "retry", "verify", "delete"])
def test_verb_of_chunks_is_for_each_that_is_named_and_no_other(layout: Layout, data_dir: Path, verb: str) -> None:
    places = [put_chunk(layout, start=start, end=start + 1) for start in range(3)]
    for place in places:
        put_want(data_dir, a_want(id=place.chunk_id))  # something to try again
        flip(f"{layout.path(place)}/data/blocks.parquet")  # and something to find
    *named, other = (place.chunk_id for place in places)
    unknown = [an_id(), an_id()]
    shown = fsdm(verb, "-d", data_dir, *named, *(["--json"] if verb == "delete" else [])).stdout
    assert [one in shown for one in (*named, other)] == [True, True, False]
    if verb == "delete":
        assert entries(data_dir / "delete") == sorted(named)
        return
    done = fsdm(verb, "-d", data_dir, *unknown)
    assert done.returncode == 3
    assert all(one in done.stderr for one in unknown)


@pytest.mark.parametrize("timeout_s", [5.0, None])
def test_timeout_of_a_wait_is_for_all_chunks_together(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, timeout_s: float | None
) -> None:
    waited: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Client, "wait_converged", lambda _, *given, **how: waited.append((*given, how)))
    ids = [an_id() for _ in range(3)]
    wait.run(Namespace(data_dir=layout.root, ids=ids, timeout=timeout_s, json=False, keep_waiting=False))
    assert waited == [(timeout_s, {"chunk_ids": ids, "keep_waiting": False})]


def test_protocol_and_schema_print_what_is_shipped(source: Source) -> None:
    assert fsdm("protocol").stdout.startswith("# The on-disk protocol of fsdm, format 1")
    assert "## Invariants" in fsdm_json("protocol")["protocol"]
    schemas = fsdm_json("schema")
    assert "id" not in schemas["want"]["required"]
    assert {"dataset_id", "block_range", "files"} <= set(schemas["want"]["required"])
    assert json.loads(fsdm("schema", "ready").stdout) == schemas["ready"]


def test_a_reader_that_has_gone_is_no_error(data_dir: Path, chunk: DataChunk) -> None:
    script = f"{sys.executable} -m fsdm ls -d {data_dir}; echo $? >&2"
    done = subprocess.run(["sh", "-c", f"({script}) | true"], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == "0\n"


def test_a_hold_without_a_command_is_shown_where_the_command_stands() -> None:
    done = fsdm("hold", "-d", ".", "a" * 64, "0")
    assert done.stderr == (
        "usage: fsdm hold [-h] [-d DIR] [--json] [--partial] DATASET BLOCK|START-END -- CMD [ARG ...]\n"
        "fsdm hold: error: no command follows `--`\n"
    )
    told = fsdm("hold", "--help").stdout
    assert "FSDM_CHUNK_PATH" in told.partition("examples:")[0]
    assert fsdm("ls", "-d", ".", "--", "true").stderr.endswith("fsdm ls: error: this verb takes no command\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error_and_their_numbers_are_not_reused(
    data_dir: Path, chunk: DataChunk, closed: str
) -> None:
    for verb in (f"hold {chunk.dataset_id} 0 -- cat /dev/null", "map", "run --once"):
        directory = data_dir.parent / "another" if verb.startswith("run") else data_dir
        script = f"FSDM_DATA_DIR={directory} exec {sys.executable} -m fsdm {verb} {closed}"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), (verb, done.stderr)


def onto_full(*arguments: str) -> subprocess.CompletedProcess[str]:
    command, pipe = [*FSDM, *arguments], subprocess.PIPE
    with open("/dev/full", "w") as full:
        return subprocess.run(command, stdout=full, stderr=pipe, text=True, timeout=60, check=False)


def test_a_stdout_that_is_full_is_told_in_a_line(data_dir: Path, chunk: DataChunk) -> None:
    for verb in ("ls", "protocol"):
        done = onto_full(verb, "-d", str(data_dir))
        told = done.stderr.splitlines()[-2:]
        assert told[0] == "fsdm: stdout cannot be written: No space left on device", done.stderr
        assert (done.returncode, told[1].strip()) == (1, "make room where the output goes, and run it again")


def test_characters_that_stdout_lacks_are_escaped_and_paths_keep_their_bytes(data_dir: Path, chunk: DataChunk) -> None:
    assert "\\u2026" in fsdm("protocol", PYTHONIOENCODING="ascii").stdout
    odd = data_dir.parent / os.fsdecode(b"n\xff")
    odd.symlink_to(data_dir)
    command = [*FSDM, "find", "-d", os.fsencode(odd), chunk.dataset_id, "0"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert os.path.isdir(done.stdout.removesuffix(b"\n"))


def test_run_goes_on_when_the_reader_of_its_events_has_gone(data_dir: Path, source: Source) -> None:
    chunks = [source.chunk(start=start, end=start + 1) for start in range(2)]
    with reconciling(data_dir, "--json") as process:
        assert process.stdout is not None
        process.stdout.close()
        for chunk in chunks:
            put_want(data_dir, chunk)
        assert fsdm("wait", "-d", data_dir, "--timeout", PATIENCE_S).returncode == 0
        process.terminate()
        assert process.stderr is not None
        said = "stdout cannot be written: its reader has gone; no more events are printed there\n"
        assert process.stderr.read() == said
        assert process.wait(PATIENCE_S) == 0


def test_run_goes_on_when_stdout_is_full(data_dir: Path, source: Source, layout: object) -> None:
    for start in range(4):
        put_want(data_dir, source.chunk(start=start, end=start + 1))
    done = onto_full("run", "--once", "--json", "-d", str(data_dir))
    said = "stdout cannot be written: No space left on device; no more events are printed there\n"
    assert (done.returncode, done.stderr) == (0, said)
    assert entries(data_dir / "want") == []


def test_reading_verbs_load_neither_pydantic_nor_requests_nor_watchdog(data_dir: Path, chunk: DataChunk) -> None:
    code = (
        "import sys; from fsdm.cli.main import main; main(sys.argv[1:]); "
        "print({'pydantic', 'requests', 'watchdog'} & set(sys.modules), file=sys.stderr)"
    )
    for verb in (["ls"], ["find", chunk.dataset_id, "0"], ["delete", an_id()], ["wait", chunk.id], ["status"]):
        command = [sys.executable, "-c", code, *verb, "-d", str(data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr.splitlines()[-1] == "set()", verb


def test_a_strange_name_moves_no_cursor_and_is_no_error(data_dir: Path, source: Source) -> None:
    names = [b"\xff\xfe", b"\x1b[2J\x1b]0;owned\x07", "\u202egnp.exe\u200b".encode(), b"a\nb\tc"]
    with reconciling(data_dir):
        for name in names:
            (data_dir / "want" / os.fsdecode(name)).touch()
    shown = fsdm("status", "-d", data_dir)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert len(lines) == len(names)
    assert all(character.isprintable() for line in lines for character in line.replace("\t", ""))
    paths = {oddity["path"] for oddity in fsdm_json("status", "-d", data_dir)["oddities"]}
    assert paths == {f"{data_dir}/want/{os.fsdecode(name)}" for name in names}
    done = fsdm("run", "-d", data_dir, "--once")
    assert (done.returncode, "\x1b" in done.stderr) == (4, False)


def test_an_answer_of_a_server_moves_no_cursor(data_dir: Path) -> None:
    with Host() as host:
        host.default = b"HTTP/1.1 404 \x1b[2Jgone\r\nContent-Length: 0\r\n\r\n"
        document = {"dataset_id": "d" * 64, "block_range": [0, 1], "files": {"x": f"{host.url}/x"}}
        (data_dir / "want").mkdir(parents=True)
        (data_dir / "want" / an_id()).write_text(json.dumps(document))
        done = fsdm("run", "-d", data_dir, "--once")
    assert "404" in done.stderr
    assert "\x1b" not in done.stderr + fsdm("status", "-d", data_dir).stdout


def test_a_verb_loads_no_other_verb() -> None:
    code = "import sys; from fsdm.cli.main import build_parser; build_parser({'ls'}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name for name in done.stdout.split() if name.startswith("fsdm.cli.commands.")} == {"fsdm.cli.commands.ls"}


def test_retry_tries_again_at_once_what_fails_and_nothing_else(data_dir: Path, source: Source) -> None:
    failing, waiting = source.chunk(files=1), source.chunk(files=1, size=10_000)
    lost = source.files.pop(f"/{failing.id}/blocks.parquet")
    with reconciling(data_dir, "--max-bytes", "5K"):
        put_want(data_dir, waiting)
        put_want(data_dir, failing)
        eventually(lambda: entries(data_dir / "failed") == sorted([failing.id, waiting.id]))
        place = (data_dir / "want" / waiting.id).stat().st_mtime_ns
        source.files[f"/{failing.id}/blocks.parquet"] = lost
        assert fsdm_json("retry", "-d", data_dir) == {"retried": [failing.id]}
        assert fsdm("wait", "-d", data_dir, failing.id, "--timeout", PATIENCE_S).returncode == 0
        assert (data_dir / "want" / waiting.id).stat().st_mtime_ns == place
        done = fsdm("retry", "-d", data_dir, waiting.id, failing.id)
        assert (done.returncode, done.stdout) == (3, f"{waiting.id}\n")
        assert f"nothing is asked for {failing.id}" in done.stderr
    assert fsdm("retry", "-d", data_dir, "x").returncode == 2


def test_file_whose_end_nothing_proves_shows_in_ready_and_ls(data_dir: Path, source: Source) -> None:
    proven = source.chunk(start=10, end=20)
    with answering([b"HTTP/1.0 200 OK\r\n\r\nbytes"]) as (url, _):
        chunk = a_want(files={"a": url})
        assert fsdm("run", "-d", data_dir, "--once").returncode == 0
        for one in (chunk, proven):
            put_want(data_dir, one)
        assert fsdm("run", "-d", data_dir, "--once", "--require-length").returncode == 4
        assert "has no length" in failure(data_dir, chunk.id)["error"]
    with answering([b"HTTP/1.0 200 OK\r\n\r\nbytes"]) as (url, _):
        put_want(data_dir, a_want(id=chunk.id, files={"a": url}))
        assert fsdm("run", "-d", data_dir, "--once").returncode == 0
    assert json.loads((chunk_dir(data_dir, chunk) / "READY").read_bytes())["files"]["a"]["unproven"] is True
    shown = {one["id"]: one["unproven"] for one in json.loads(fsdm("ls", "-d", data_dir, "--json").stdout)}
    assert shown == {chunk.id: ["a"], proven.id: []}
