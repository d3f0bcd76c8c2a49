"""Settings, strategies that mangle sound documents, and a data directory for one example."""

import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fsdm.cli import main as cli
from fsdm.model.layout import Layout
from fsdm.store.data_dir import make_layout
from fsdm.store.filesystem import FileSystem
from tests.support.filesystems import MEMORY

EXAMPLES = int(os.environ.get("FSDM_FUZZ", "60"))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

ID, DATASET, SHA = "a" * 64, "d" * 64, "5" * 64


def words(text: str) -> list[bytes]:
    """The words of a text, each a token of its own."""
    return [word.encode() for word in text.split()]


@st.composite
def mangled(draw: st.DrawFn, seeds: list[bytes], tokens: list[bytes]) -> bytes:
    """One of the seeds after a few cuts, copies, and tokens that were put in."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.integers(0, 4)):
            case 0:
                data = data[:at] + data[to:]
            case 1:
                data = data[:to] + data[at:]
            case 2:
                data = data[:at] + draw(st.sampled_from(tokens)) + data[at:]
            case 3:
                data = data[:at] + draw(st.sampled_from(tokens)) + data[to:]
            case _:
                data = data[:at] + draw(st.binary(max_size=4)) + data[at + 1 :]
    return data


def spots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and its key or index."""
    held = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(held):
        yield value, key
        yield from spots(inner)


@st.composite
def rewritten(draw: st.DrawFn, seeds: list[bytes], values: list[bytes]) -> bytes:
    """One of the seeds, still JSON but for what stands in one place of it, or what one key is called."""
    document = json.loads(draw(st.sampled_from(seeds)))
    holder, key = draw(st.sampled_from(list(spots(document))))
    if isinstance(holder, dict) and draw(st.booleans()):
        holder["HERE"] = holder.pop(key) if draw(st.booleans()) else holder[key]
    else:
        holder[key] = "HERE"
    return json.dumps(document).encode().replace(b'"HERE"', draw(st.sampled_from(values)))


@contextmanager
def data_directory() -> Iterator[Layout]:
    """A data directory for one example, and beside it what is nobody's business."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as parent:
        layout = Layout(f"{parent}/data")
        make_layout(layout, FileSystem(durable=False))
        outside = Path(parent, "outside")
        outside.mkdir()
        (outside / "precious").write_text("precious")
        yield layout
        assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("precious", "precious")]
        assert sorted(os.listdir(parent)) == ["data", "outside"]


def stays_inside(directory: str, name: str) -> bool:
    path = os.path.join(directory, name)
    return os.path.dirname(os.path.normpath(path)) == directory and os.path.basename(path) == name


def shown(*arguments: str) -> int:
    """The exit code of a verb whose output must be UTF-8."""
    with io.TextIOWrapper(io.BytesIO(), encoding="utf-8") as out, redirect_stdout(out), redirect_stderr(out):
        return cli.main(arguments)
