"""config.toml: what it says, what it must not be, and what a running reconciler makes of it."""

import os
import signal
import subprocess
import traceback
from argparse import Namespace
from pathlib import Path

import pytest

from fsdm import DataManager, Limits
from fsdm import Source as SourceSettings
from fsdm.cli.config import CONFIG_MAX_BYTES, KEYS, in_words, parse_config, read_config, reload
from fsdm.cli.main import build_parser
from fsdm.model.errors import InvalidInputError
from fsdm.model.indexes import Index
from fsdm.model.layout import Layout
from tests.support import PATIENCE_S, Source, eventually, fsdm, reconciling
from tests.support.chunks import failure, put_want


def test_each_key_sets_one_limit() -> None:
    numbers = b"jobs = 3\nconnections = 4\nconnections-per-host = 5\nconnections-per-file = 6\nscrub-days = 30\n"
    others = b'rate = "50M"\nmax-bytes = "1.5Ti"\nkeep-free = 0\nbrake = "10%"\nrequire-length = true\n'
    others += b'transport = "libcurl"\nhttp-version = "2"\nallow-source = ["s3://lake/*"]\nallow-dir = ["/srv/in"]\n'
    others += b'cache-low = "80%"\nrecover = "never"\nmax-attempts = 9\n'
    limits = parse_config(numbers + others + b"index-jobs = 7\n")
    counts = {"index_jobs": 7, "jobs": 3, "connections": 4, "per_host": 5, "per_file": 6}
    assert Limits(**limits) == Limits(
        **counts,
        bytes_per_s=50_000_000,
        max_bytes=3 << 39,
        brake_share=0.1,
        cache_low_share=0.8,
        recover="never",
        max_attempts=9,
        scrub_days=30,
        require_length=True,
        http_version="2",
        allow_sources=("s3://lake/*",),
        allow_dirs=("/srv/in",),
    )
    assert len(limits) == len(KEYS)
    assert parse_config(b"") == {}
    assert parse_config(b'brake = "off"') == {"brake_share": None}
    assert parse_config(b"brake = 1\nrate = 10") == {"brake_share": 1.0, "bytes_per_s": 10}
    assert in_words(parse_config(b'max-bytes = "1K"\nbrake = "off"')) == "max-bytes 1000, brake off"
    assert in_words(parse_config(b'allow-dir = ["/a", "/b"]')) == "allow-dir /a /b"


def test_the_rate_has_one_name_everywhere_and_its_older_one_is_taken() -> None:
    for text in (b'limit-rate = "1K"', b'rate = "1K"'):
        assert parse_config(text) == {"bytes_per_s": 1000}
        assert in_words(parse_config(text)) == "limit-rate 1000"
        (source,) = parse_config(b'[[source]]\nmatch = "https://h/"\n' + text)["source"]
        assert source.bytes_per_s == 1000
    for both in (b"rate = 1\nlimit-rate = 2", b'[[source]]\nmatch = "https://h/"\nrate = 1\nlimit-rate = 2'):
        with pytest.raises(InvalidInputError, match="limit-rate: is rate by another name, and both are there"):
            parse_config(both)
    assert parse_config(b"per-host = 3\nkeep-free-bytes = 7") == {"per_host": 3, "keep_free_bytes": 7}, "as in Python"
    with pytest.raises(InvalidInputError, match="keep-free: is keep-free-bytes by another name"):
        parse_config(b"keep-free-bytes = 7\nkeep-free = 7")
    with pytest.raises(InvalidInputError, match="'limit-rat' is not known") as caught:
        parse_config(b"limit-rat = 1")
    assert caught.value.hint == "did you mean limit-rate?"
    assert build_parser().parse_args(["run", "--rate", "1K"]).bytes_per_s == 1000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"jobs = 0", "jobs: must be greater than or equal to 1, not 0"),
        (b"jobs = -1", "jobs: must be greater than or equal to 1, not -1"),
        (b"jobs = true", "jobs: must be a valid integer, not True"),
        (b'jobs = "8"', "jobs: must be a valid integer, not '8'"),
        (b"jobs = 1.5", "jobs: must be a valid integer, not 1.5"),
        (b"[jobs]\nx = 1", "jobs: must be a valid integer"),
        (b"rate = 0", "rate: must be greater than 0"),
        (b'rate = "fast"', "rate: 'fast' is no size"),
        (b"keep-free = -1", "keep-free: must be greater than or equal to 0, not -1"),
        (b'max-bytes = "1 G"', "max-bytes: '1 G' is no size"),
        (b"brake = 2", "brake: must be less than or equal to 1, not 2"),
        (b"brake = false", "brake: must be a valid number"),
        (b"max-attempts = 0", "max-attempts: must be greater than or equal to 1, not 0"),
        (b'recover = "later"', "recover: must be 'now', 'acquire' or 'never', not 'later'"),
        (b"cache-low = 0", "cache-low: must be greater than 0"),
        (b'cache-low = "off"', "cache-low: must be a valid number"),
        (b'cache-low = "1G"', "cache-low: '1G' is no share"),
        (b"brake = nan", "brake: must be less than or equal to 1, not nan"),
        (b"brake = [1]", "brake: must be a valid number"),
        (b"scrub-days = 0", "scrub-days: must be greater than 0"),
        (b'scrub-days = "30"', "scrub-days: must be a valid number"),
        (b"require-length = 1", "require-length: must be a valid boolean"),
        (b'transport = "wget"', "transport: must be 'libcurl' or 'requests', not 'wget'"),
        (b"transport = 1", "transport: must be 'libcurl' or 'requests', not 1"),
        (b"http-version = 2", "http-version: must be '1.1' or '2', not 2"),
        (b'allow-source = "s3://lake"', "allow-source: must be a list of texts"),
        (b"allow-source = [1]", "allow-source: must be a list of texts"),
        (b'allow-source = ["lake"]', "allow-source: 'lake' is no pattern of sources"),
        (b'allow-dir = ["in"]', "allow-dir: 'in' is no directory that can be allowed"),
        (b"jobs", "is no TOML"),
        (b"jobs = 1\njobs = 2", "is no TOML"),
        (b"\xff", "is no TOML"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(text: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError) as e:
        parse_config(text)
    assert str(e.value).startswith(said)


@pytest.mark.parametrize(
    ("key", "hint"),
    [("max_bytes", "did you mean max-bytes?"), ("job", "did you mean jobs?"), ("zzz", "there are jobs, ")],
)
def test_an_unknown_key_is_named_with_the_nearest_one(key: str, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the key '{key}' is not known") as e:
        parse_config(f"{key} = 1".encode())
    assert e.value.hint.startswith(hint)


def test_each_key_of_a_source_sets_one_field() -> None:
    text = b"""
jobs = 3
[[source]]
match = "https://lake.example/"
headers = { X-A = "a" }
headers-file = "lake.token"
headers-env = { X-B = "B" }
user = "me"
password-file = "pw"
ca = "ca.pem"
client-cert = "c.pem"
client-key = "k.pem"
proxy = ""
connections = 2
requests-per-s = 2.5
rate = "50M"
[[source]]
match = "http://other.example"
rate = 10
[[source]]
match = "s3://lake/"
endpoint = "http://minio:9000"
region = "eu-west-1"
path-style = false
access-key-id = "AKID"
secret-access-key = "hush"
session-token-file = "t"
[[source]]
match = "s3://"
access-key-id = "AKID"
secret-access-key-file = "s"
[[source]]
match = "az://box"
endpoint = "https://a.blob.core.windows.net"
sas-file = "sas"
[[source]]
match = "gs://open"
unsigned = true
"""
    sources = [
        SourceSettings(
            match="https://lake.example/",
            headers={"X-A": "a"},
            headers_file="lake.token",
            headers_env={"X-B": "B"},
            user="me",
            password_file="pw",
            ca="ca.pem",
            client_cert="c.pem",
            client_key="k.pem",
            proxy="",
            connections=2,
            requests_per_s=2.5,
            bytes_per_s=50_000_000,
        ),
        SourceSettings(match="http://other.example", bytes_per_s=10),
        SourceSettings(
            match="s3://lake/",
            endpoint="http://minio:9000",
            region="eu-west-1",
            path_style=False,
            access_key_id="AKID",
            secret_access_key="hush",
            session_token_file="t",
        ),
        SourceSettings(match="s3://", access_key_id="AKID", secret_access_key_file="s"),
        SourceSettings(match="az://box", endpoint="https://a.blob.core.windows.net", sas_file="sas"),
        SourceSettings(match="gs://open", unsigned=True),
    ]
    assert parse_config(text) == {"jobs": 3, "source": tuple(sources)}
    assert {field for source in sources for field in source.model_fields_set} == set(SourceSettings.model_fields)
    assert in_words(parse_config(text)) == "jobs 3, 6 sources"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('source = "hush"', "source: must be a table, or several", "each begins with a line [[source]]"),
        (
            "[source]\nmatch = 'http://hush'",
            "source: must be a table, or several",
            "each begins with a line [[source]]",
        ),
        ("source = ['hush']", "source: must be a table, or several", "each begins"),
        ("[[sources]]\nmatch = 'hush'", "the key 'sources' is not known", "did you mean source?"),
        ("[[source]]", "source 1 ((no URL)): match: Field required", ""),
        (
            "[[source]]\nmatch = 'https://a/'\n[[source]]\nmatch = 'https://b/c'\nheaders_file = 'hush'",
            "source 2 (https://b/c): the key 'headers_file' is not known",
            "did you mean headers-file?",
        ),
        ("[[source]]\nmatch = 'https://a/'\nzzz = 'hush'", "source 1 (https://a/): the key 'zzz'", "there are match, "),
        ("[[source]]\nmatch = 'https://a/'\nbytes_per_s = 1", "source 1 (https://a/): the key 'bytes_per_s'", ""),
        ("[[source]]\nmatch = 'https://me:hush@a/'", "source 1 (https://a/): match: is no beginning of URLs", ""),
        ("[[source]]\nmatch = 'https://a/'\nheaders = { Range = 'hush' }", "source 1 (https://a/): headers: Range", ""),
        ("[[source]]\nmatch = 'https://a/'\nheaders = { A = ['hush'] }", "source 1 (https://a/): headers: must be", ""),
        ("[[source]]\nmatch = 'https://a/'\nclient-key = 'hush'", "source 1 (https://a/): client-key: it is of", ""),
        ("[[source]]\nmatch = 'https://a/'\nrate = 0", "source 1 (https://a/): rate: must be greater than 0", ""),
        ("[[source]]\nmatch = 'https://a/'\nrate = 'fast'", "source 1 (https://a/): rate: 'fast' is no size", ""),
        ("[[source]]\nmatch = 'https://a/'\nheaders = { A = 'hush }", "is no TOML", ""),
    ],
)
def test_wrong_source_is_named_by_its_number_and_key_without_a_value(text: str, said: str, hint: str) -> None:
    with pytest.raises(InvalidInputError) as e:
        parse_config(text.encode())
    assert str(e.value).startswith(said)
    assert (e.value.hint or "").startswith(hint)
    assert "hush" not in "".join(traceback.format_exception(e.value)) + e.value.hint


def test_indexes_are_read_by_their_names() -> None:
    text = b"""
[index.tx]
indexer = "parquet:hash"
files = "tx*.parquet"
timeout = 60
max-output = "1M"
max-memory = "1Gi"
[index.car]
command = "car-keys --all"
"""
    limits = {"timeout_s": 60, "max_output_bytes": 1_000_000, "max_memory_bytes": 1 << 30}
    tx = Index(name="tx", indexer="parquet:hash", files="tx*.parquet", **limits)  # type: ignore[arg-type]
    assert parse_config(text) == {"index": (tx, Index(name="car", command="car-keys --all"))}
    assert tx.model_fields_set | {"command"} == set(Index.model_fields)
    assert in_words(parse_config(b"jobs = 3\n" + text)) == "jobs 3, index tx, index car"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("index = 7", "index: must be a table for each", "each begins with a line [index.NAME]"),
        ("[index]\nindexer = 'car'", "index: must be a table for each", "each begins"),
        ("[index.tx]\nindexer = 'car'\n[[index.tx]]", "is no TOML", ""),
        ("[index.TX]\nindexer = 'car'", "index TX: name: 'TX' cannot be the name of an index", "1 to 64 of"),
        ("[index.tx]", "index tx: has an indexer or a command", ""),
        ("[index.tx]\nindexr = 'car'", "index tx: the key 'indexr' is not known", "did you mean indexer?"),
        ("[index.tx]\nindexer = 'car'\nmax-memory = '1M'", "index tx: max-memory: must be greater", ""),
        ("[index.tx]\nindexer = 'car'\nmax-output = 'much'", "index tx: max-output: 'much' is no size", ""),
        ("[index.tx]\nindexer = 'car'\ntimeout = '60'", "index tx: timeout: must be a valid number", ""),
        ("[index.tx]\nindexer = 7", "index tx: indexer: must be a valid string", ""),
    ],
)
def test_wrong_index_is_named_with_its_key(text: str, said: str, hint: str) -> None:
    with pytest.raises(InvalidInputError) as e:
        parse_config(text.encode())
    assert str(e.value).startswith(said)
    assert (e.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("key", "is_secret"),
    [
        ("headers = { X-Any = 'hush' }", True),
        ("proxy = 'http://me:hush@proxy'", True),
        ("proxy = 'http://proxy'", False),
        ("headers-file = 'token'", False),
    ],
)
def test_a_file_with_a_secret_that_others_may_read_is_refused(layout: Layout, key: str, is_secret: bool) -> None:
    path = Path(layout.config)
    path.write_text(f"[[source]]\nmatch = 'https://a/'\n{key}\n")
    for mode in (0o600, 0o400, 0o640, 0o604):
        path.chmod(mode)
        if mode in {0o600, 0o400} or not is_secret:
            assert len(read_config(layout)["source"]) == 1
            continue
        with pytest.raises(InvalidInputError, match="has a secret of a source, and may be read by others") as e:
            read_config(layout)
        assert f"chmod go-rw {path}" in e.value.hint


def test_a_file_that_others_may_write_is_refused(layout: Layout) -> None:
    assert read_config(layout) == {}
    path = Path(layout.config)
    path.write_text("jobs = 2")
    for mode, is_read in ((0o600, True), (0o644, True), (0o664, False), (0o646, False)):
        path.chmod(mode)
        if is_read:
            assert read_config(layout) == {"jobs": 2}
            continue
        with pytest.raises(InvalidInputError, match="may be written by others") as e:
            read_config(layout)
        assert f"chmod go-w {path}" in e.value.hint


def test_a_file_of_another_user_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(layout.config).write_text("jobs = 2")
    user = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if os.lstat(layout.config).st_uid == 0:
        os.chown(layout.config, user + 1, -1)
    with pytest.raises(InvalidInputError, match="may be written by others"):
        read_config(layout)


def test_a_symlink_or_a_file_that_is_too_long_is_refused(layout: Layout, tmp_path: Path) -> None:
    path = Path(layout.config)
    (tmp_path / "other").write_text("jobs = 2")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(InvalidInputError, match=r"config\.toml is not a file"):
        read_config(layout)
    path.unlink()
    path.write_bytes(b"#" * (CONFIG_MAX_BYTES + 1))
    with pytest.raises(InvalidInputError, match="has more than"):
        read_config(layout)


# ------------------------------------------------------------------------------------------------------ a running one


def test_jobs_grow_and_shrink_and_what_runs_is_not_cut(data_dir: Path, source: Source) -> None:
    chunks = [source.chunk(files=1) for _ in range(6)]
    faults = [source.fault(f"/{chunk.id}/blocks.parquet", stall_at=500) for chunk in chunks]

    def stalled() -> int:
        return sum(fault.stalled.is_set() for fault in faults)

    with DataManager(data_dir, limits=Limits(jobs=1)) as dm:
        for chunk in chunks:
            dm.download_chunk(chunk)
        eventually(lambda: stalled() == 1)
        dm.change(Limits(jobs=4))
        eventually(lambda: stalled() == 4)
        dm.change(Limits(jobs=1))
        eventually(lambda: dm.reconciler and dm.reconciler.loop.limits.jobs == 1)
        running = [fault for fault in faults if fault.stalled.is_set()]
        for fault in running[:3]:
            fault.gate.set()
        eventually(lambda: len(dm.list_chunks()) == 3)
        assert stalled() == 4  # one still runs, and it is the only one that may
        for fault in faults:
            fault.gate.set()
        dm.wait_converged(PATIENCE_S)
    assert max(source.asked.values()) == 1


def test_a_rate_holds_at_once_also_for_what_waits_to_be_paid(data_dir: Path, source: Source) -> None:
    chunk = source.chunk(files=1, size=200_000)
    with DataManager(data_dir, limits=Limits(bytes_per_s=1)) as dm:
        dm.download_chunk(chunk)
        partial = data_dir / "partial" / chunk.id / "data" / "blocks.parquet"
        eventually(lambda: partial.exists() and partial.stat().st_size > 0)
        dm.change(Limits())
        assert dm.wait(chunk.id, PATIENCE_S)  # at one byte a second it would be days


def test_a_budget_that_is_raised_or_lifted_lets_in_what_waits(data_dir: Path, source: Source) -> None:
    small, large = source.chunk(files=1, size=10_000), source.chunk(files=1, size=100_000)
    with DataManager(data_dir, limits=Limits(max_bytes=1000)) as dm:
        for chunk in (small, large):
            dm.download_chunk(chunk)
        eventually(lambda: failure(data_dir, small.id) and failure(data_dir, large.id))
        dm.change(Limits(max_bytes=50_000))
        assert dm.wait(small.id, PATIENCE_S)
        assert (failure(data_dir, large.id) or {})["kind"] == "room"
        dm.change(Limits())
        assert dm.wait(large.id, PATIENCE_S)
        assert failure(data_dir, large.id) is None


def test_a_budget_that_comes_later_counts_what_is_here_and_what_runs(data_dir: Path, source: Source) -> None:
    here, runs, more = (source.chunk(files=1, size=10_000) for _ in range(3))
    fault = source.fault(f"/{runs.id}/blocks.parquet", stall_at=500)
    with DataManager(data_dir) as dm:
        dm.download_chunk(here)
        assert dm.wait(here.id, PATIENCE_S)
        dm.download_chunk(runs)
        assert fault.stalled.wait(PATIENCE_S)
        dm.change(Limits(max_bytes=29_999))
        eventually(lambda: dm.reconciler and dm.reconciler.loop.limits.max_bytes)
        dm.download_chunk(more)
        said = eventually(lambda: failure(data_dir, more.id))
        assert "20000 bytes of 29999 bytes are taken" in said["error"]
        fault.gate.set()
        assert dm.wait(runs.id, PATIENCE_S)


def test_limits_that_wait_for_the_next_start_are_logged(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with DataManager(data_dir) as dm:
        dm.change(Limits(jobs=2, connections=3, durability="none"))
        eventually(lambda: dm.reconciler and dm.reconciler.loop.limits.jobs == 2)
        assert dm.reconciler
        assert dm.reconciler.loop.limits == Limits(jobs=2)
    assert "not before the next start: connections, durability" in caplog.text


@pytest.mark.parametrize("limits", [5, None, {"jobs": 2}])
def test_a_value_that_is_no_limits_is_refused(dm: DataManager, limits: Limits) -> None:
    with pytest.raises(InvalidInputError, match=r"^limits: must be Limits, not "):
        dm.change(limits)
    assert dm.reconciler is not None
    assert dm.reconciler.loop.limits == Limits()


def line(process: subprocess.Popen[str], part: str) -> str:
    """The next line on stderr that has this in it."""
    assert process.stderr is not None
    for text in process.stderr:
        if part in text:
            return text
    raise AssertionError(f"it has ended without {part!r}")


def test_run_reads_the_file_at_its_start_and_an_option_wins(data_dir: Path, source: Source, layout: Layout) -> None:
    Path(layout.config).write_text('max-bytes = "1K"\n')
    chunk = source.chunk(files=1, size=5000)
    put_want(data_dir, chunk)
    done = fsdm("run", "-d", data_dir, "--once")
    assert (done.returncode, "more than the 1000 bytes" in done.stderr) == (4, True)
    assert fsdm("run", "-d", data_dir, "--once", "--max-bytes", "1M").returncode == 0


def test_a_wrong_file_ends_run_with_2(data_dir: Path, layout: Layout) -> None:
    Path(layout.config).write_text("max_bytes = 1\n")
    for more in ([], ["--once"]):
        done = fsdm("run", "-d", data_dir, *more)
        assert done.returncode == 2
        assert f"{layout.config}: the key 'max_bytes' is not known" in done.stderr
        assert "did you mean max-bytes?" in done.stderr


def test_an_option_that_cannot_be_taken_is_named_as_it_was_written(data_dir: Path) -> None:
    done = fsdm("run", "-d", data_dir, "--limit-rate", "1K", "--scrub-days", "0")
    assert (done.returncode, "fsdm: --scrub-days: must be greater than 0, not 0.0" in done.stderr) == (2, True)


def test_sighup_reads_the_file_again_and_a_wrong_one_changes_nothing(
    data_dir: Path, source: Source, layout: Layout
) -> None:
    config = Path(layout.config)
    config.write_text('max-bytes = "1K"\nconnections = 2\n')
    chunk, later = source.chunk(files=1, size=5000), source.chunk(files=1, size=50_000)
    with reconciling(data_dir, "--jobs", "3") as process:
        put_want(data_dir, chunk)
        put_want(data_dir, later)
        eventually(lambda: failure(data_dir, chunk.id) and failure(data_dir, later.id))
        config.write_text('max-bytes = "10K"\njobs = 5\nconnections = 2\n')
        process.send_signal(signal.SIGHUP)
        assert line(process, "config.toml").endswith(
            f" info    {config} says max-bytes 10000, connections 2; an option wins over jobs 5\n"
        )
        eventually(lambda: not (data_dir / "want" / chunk.id).exists())
        config.write_text('max-bytes = "lots"\n')
        process.send_signal(signal.SIGHUP)
        assert "max-bytes: 'lots' is no size; all stays as it was" in line(process, "config.toml")
        assert (failure(data_dir, later.id) or {})["kind"] == "room"
        config.unlink()
        process.send_signal(signal.SIGHUP)
        assert "says nothing" in line(process, "config.toml")
        eventually(lambda: not (data_dir / "want" / later.id).exists())
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_a_directory_that_cannot_be_looked_into_ends_run_with_6(tmp_path: Path) -> None:
    for more in ([], ["--once"], ["--dry-run"]):
        done = fsdm("run", "-d", tmp_path / ("x" * 300), *more)
        assert (done.returncode, "x cannot be looked into: File name too long" in done.stderr) == (6, True)


def test_sighup_changes_nothing_where_the_directory_cannot_be_looked_into(
    layout: Layout, data_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DataManager(data_dir) as dm:
        monkeypatch.setattr(Layout, "config", f"{data_dir}/{'x' * 300}")
        reload(dm, Namespace())
    assert "cannot be looked into: File name too long; all stays as it was" in caplog.text
