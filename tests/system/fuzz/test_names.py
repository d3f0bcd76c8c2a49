"""Entries of any name are listed and shown, and lead nowhere."""

import os
import shutil
import unicodedata
from functools import partial
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from fsdm import DataManager
from fsdm.model.documents import DataChunk
from fsdm.model.layout import U64_MAX, Place
from fsdm.store.catalog import Catalog
from fsdm.store.filesystem import FileSystem, is_directory
from fsdm.store.marker_removal import clear_temporaries, finish_removals
from fsdm.store.scan import look, scan
from tests.support import PATIENCE_S, Source
from tests.support.chunks import an_id, bring, chunk_dir, content
from tests.support.fuzzing import DATASET, ID, data_directory, fuzz, mangled, shown, stays_inside

KINDS = list(enumerate(["file", "directory", "symlink"], 1))


def odd_names() -> st.SearchStrategy[bytes]:
    ours = [
        *(ID, DATASET, f".{ID}.{'0' * 8}", f".judged-1_2_3_{ID}", ".judged-", ".judged-..", ".judged-_", "READY"),
        *(f"{0:020d}-{35:020d}-{ID}", f"{35:020d}-{0:020d}-{ID}", f"{0:020d}-{U64_MAX + 1:020d}-{ID}", "LOCK"),
        *("٠" * 20 + "-" + "٣" * 20 + "-" + ID, f"{ID}\n", f"{ID} ", ID.upper(), "é", "e\u0301", "\u202e", "\u200b"),
    ]
    texts = st.sampled_from(ours).map(str.encode)
    made = mangled([name.encode() for name in ours], [b"\xff", b"-", b"_", b".", b"~", b"\n", b"0", "é".encode()])
    return (
        (texts | made | st.binary(min_size=1, max_size=80))
        .map(lambda name: name.replace(b"/", b"").replace(b"\0", b"")[:255])
        .filter(lambda name: name not in {b"", b".", b".."})
    )


DIRECTORIES = ["want", "delete", "verify", "partial", "failed", "trash", "chunks", f"chunks/{DATASET}"]
entries = st.tuples(st.sampled_from(DIRECTORIES), odd_names(), st.sampled_from(["file", "directory", "symlink"]))


@given(st.lists(entries, max_size=12))
@example([("want", b".judged-", "directory"), ("delete", b".judged-1_2_3_" + ID.encode(), "directory")])
@example([(f"chunks/{DATASET}", b"%020d-%020d-" % (0, number) + ID.encode(), kind) for number, kind in KINDS])
@fuzz
def test_entries_of_any_name_are_shown_and_lead_nowhere(planted: list[tuple[str, bytes, str]]) -> None:
    with data_directory() as layout:
        os.makedirs(layout.dataset(DATASET))
        outside = os.path.join(os.path.dirname(layout.root), "outside")
        for directory, name, kind in planted:
            path = f"{layout.root}/{directory}/{os.fsdecode(name)}"
            if not os.path.lexists(path):
                make = {"file": os.mknod, "directory": os.mkdir, "symlink": partial(os.symlink, outside)}
                make[kind](path)
        fs = FileSystem(durable=False)
        finish_removals(layout, fs)
        clear_temporaries(layout, fs, 1e12)
        catalog = Catalog(layout)
        catalog.refresh()
        for place in catalog.all_places():
            assert stays_inside(layout.dataset(place.dataset_id), place.name)
            assert Place.of(place.dataset_id, place.block_range, place.chunk_id) == place
            assert catalog.is_stray(place) is not is_directory(layout.path(place))
        for place in catalog.listing():
            assert not os.path.islink(layout.path(place))
        for chunk_id in scan(layout, catalog).ids:
            look(layout, catalog, chunk_id)
        assert shown("status", "-d", layout.root) == shown("status", "--json", "-d", layout.root) == 0
        for name in os.listdir(layout.trash):
            fs.erase(f"{layout.trash}/{name}")
        shutil.rmtree(layout.root)
        os.mkdir(layout.root)


ODD_FILES = [
    *(unicodedata.normalize("NFC", "é.parquet"), unicodedata.normalize("NFD", "é.parquet")),
    *("A", "a", "ß", "ss", "ﬁ", "fi", "İ", "i\u0307", "\u212b", "\u00c5", "A\u030a"),
    *("x\u200by", "xy", "\u202egnp.exe", "\ufeffbom", "tab\there", "line\nfeed", "bell\x07", "\x7f", "\x1b[2J"),
    *("READY", "data", "PARTS", ".hidden", "backup~", "-rf", "--", " ", "a b", "*", "?", "$(id)", "`id`", "\\", "..."),
    *("é" * 127, "x" * 255, "😀" * 63, "con", "nul.txt", "a:b", "%2e%2e%2f", "..\\..\\x", "٣"),
]


def test_unicode_names_of_every_form_stay_as_they_are(data_dir: Path, source: Source) -> None:
    files = {name: source.put(f"/{number}", content(name)) for number, name in enumerate(ODD_FILES)}
    assert len(files) == len(ODD_FILES) == len(set(ODD_FILES))
    chunk = DataChunk(id=an_id(), dataset_id=DATASET, block_range=(0, 1), files=files)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
        assert sorted(os.listdir(chunk_dir(data_dir, chunk))) == ["READY", "WANT", "data"]
        found = {path.name: path.read_bytes() for path in (chunk_dir(data_dir, chunk) / "data").iterdir()}
        assert found == {name: content(name) for name in ODD_FILES}
        dm.delete_chunk(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)
