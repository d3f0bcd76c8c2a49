"""The sources in `config.toml`, for the verbs that fetch a list or a document."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fsdm.cli.config import SOURCES, read_config
from fsdm.cli.output import tell

if TYPE_CHECKING:
    from fsdm.lists.fetching import Fetching
    from fsdm.model.layout import Layout


def fetching_for(where: str, layout: Layout) -> Fetching | None:
    """Return what fetches from a URL, with the settings that the reconciler has; None for what is no URL.

    They are the owner's: another user fetches without them, and is told so.

    Raises:
        InvalidInputError: the owner's own file cannot be taken.
    """
    if "://" not in where:
        return None
    from fsdm.lists.fetching import Fetching
    from fsdm.transfer.http.source_settings import Sources

    try:
        is_ours = os.stat(layout.config).st_uid == os.geteuid()
    except FileNotFoundError:
        return Fetching()
    if not is_ours:
        tell(f"fsdm: {layout.config} is another user's: the sources in it are not used")
        return Fetching()
    return Fetching(Sources(read_config(layout).get(SOURCES, ()), layout.root))
