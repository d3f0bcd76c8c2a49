"""A source: what it may say, what is fsdm's own, and that nothing of its secrets is shown."""

import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from fsdm import InvalidInputError, Source
from fsdm.model.sources import OWN, join_headers

SECRET = "hush-1234"
LAKE = {"match": "s3://lake/"}


def source(**given: Any) -> Source:
    return Source(**{"match": "https://lake.example/", **given})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"match": 5}, "match: must be a valid string"),
        ({"match": "lake.example"}, "match: is no beginning of URLs"),
        ({"match": "s3://me@lake/"}, "match: is no beginning of URLs"),
        ({"match": f"https://me:{SECRET}@lake.example/"}, "match: is no beginning of URLs"),
        ({"match": f"https://lake.example/?{SECRET}"}, "match: is no beginning of URLs"),
        ({"match": f"https://lake.example/#{SECRET}"}, "match: is no beginning of URLs"),
        ({"match": f"https://lake.example\\{SECRET}/"}, "match: is no beginning of URLs"),
        ({"match": "https:///a"}, "match: is no beginning of URLs"),
        ({"heders": SECRET}, "heders: is no setting of a source"),
        ({"headers": SECRET}, "headers: must be a valid dictionary"),
        ({"headers": {"Authorization": 5}}, "headers: must be a valid string"),
        ({"headers": {f"Authorization: {SECRET}": ""}}, "headers: the name of header 1 is no name of a header"),
        ({"headers": {"A": "a", f"Bearer {SECRET}": "b"}}, "headers: the name of header 2 is no name of a header"),
        ({"headers": {"": SECRET}}, "headers: the name of header 1 is no name of a header"),
        ({"headers": {"A": ""}}, "headers: the value of A is empty"),
        ({"headers": {"A": f"{SECRET}\r\nB: b"}}, "headers: the value of A is empty, or has more than printable ASCII"),
        ({"headers": {"A": f"{SECRET}\n"}}, "headers: the value of A is empty, or has more than printable ASCII"),
        ({"headers": {"A": f" {SECRET}"}}, "headers: the value of A is empty, or has more than printable ASCII"),
        ({"headers": {"A": f"{SECRET}ü"}}, "headers: the value of A is empty, or has more than printable ASCII"),
        ({"headers": {"A": SECRET, "a": "b"}}, "headers: a is given twice"),
        ({"headers": {"A": SECRET}, "headers_env": {"a": "B"}}, "headers_env: a is given twice"),
        (
            {"headers": {"authorization": SECRET}, "user": "a", "password_file": "b"},
            "user: Authorization is given twice",
        ),
        ({"user": "a:b", "password_file": "b"}, "user: has what it cannot have"),
        ({"user": "me"}, "user: it goes with password-file"),
        ({"password_file": "a"}, "user: it goes with password-file"),
        ({"client_key": "a"}, "client_key: it is of no use without client-cert"),
        ({"ca": ""}, "ca: has what it cannot have"),
        ({"headers_file": "a\0b"}, "headers_file: has what it cannot have"),
        ({"proxy": 5}, "proxy: must be a valid string"),
        ({"connections": 0}, "connections: must be greater than or equal to 1"),
        ({"connections": True}, "connections: must be a valid integer"),
        ({"bytes_per_s": 0}, "bytes_per_s: must be greater than 0"),
        ({"limit_rate": 0}, "limit_rate: must be greater than 0"),
        ({"limit_rate": 1, "bytes_per_s": 1}, "bytes_per_s: is limit_rate by another name"),
        ({"bytes_per_s": float("nan")}, "bytes_per_s: must be greater than 0"),
        ({"access_key_id": "A", "secret_access_key": SECRET}, "access_key_id: it is of no use for https://"),
        ({**LAKE, "access_key_id": "A"}, "access_key_id: it goes with secret-access-key or secret-access-key-file"),
        ({**LAKE, "secret_access_key": SECRET}, "access_key_id: it goes with secret-access-key"),
        (
            {**LAKE, "access_key_id": "A", "secret_access_key": SECRET, "secret_access_key_file": "b"},
            "access_key_id: it goes with secret-access-key or secret-access-key-file, and needs one",
        ),
        ({**LAKE, "access_key_id": f"{SECRET}\n"}, "access_key_id: has what it cannot have"),
        ({**LAKE, "session_token_file": "a"}, "session_token_file: it is of no use without access-key-id"),
        ({**LAKE, "access_key_id": "A", "secret_access_key": SECRET, "unsigned": True}, "unsigned: there is something"),
        ({**LAKE, "sas_file": "a"}, "sas_file: it is of no use for s3://"),
        ({**LAKE, "endpoint": f"https://me:{SECRET}@h"}, "endpoint: has what it cannot have"),
        ({**LAKE, "endpoint": f"https://h/?{SECRET}"}, "endpoint: has what it cannot have"),
        ({**LAKE, "endpoint": "ftp://h"}, "endpoint: has what it cannot have"),
        ({**LAKE, "region": "eu/../x"}, "region: has what it cannot have"),
        ({"match": "az://box"}, "endpoint: az needs it"),
        ({"match": "az://box", "endpoint": "https://h", "region": "x"}, "region: it is of no use for az://"),
        ({"match": "gs://lake", "session_token_file": "a"}, "session_token_file: it is of no use for gs://"),
        ({"match": "file:///srv/in", "headers": {"A": SECRET}}, "headers: it is of no use for file://"),
        ({"match": "thing://shelf", "proxy": ""}, "proxy: it is of no use for thing://"),
    ],
)
def test_wrong_value_is_refused_by_its_field_and_not_shown(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        source(**given)
    assert str(caught.value).startswith(said)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert SECRET not in str(caught.value.__context__), "which some loggers show"


@pytest.mark.parametrize("name", [*sorted(name.title() for name in OWN), "range", "CONNECTION"])
@pytest.mark.parametrize("field", ["headers", "headers_env"])
def test_header_that_is_for_fsdm_to_send_is_refused(name: str, field: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{field}: {name} is for fsdm to send"):
        source(**{field: {name: "x"}})


def test_what_is_fsdms_own_is_what_frames_a_message_and_what_asks_for_a_part() -> None:
    assert {"host", "range", "if-range", "accept-encoding", "content-length", "transfer-encoding", "connection"} <= OWN


def test_headers_are_joined_by_name_and_authorization_has_one_spelling() -> None:
    fields = [("headers", "AUTHORIZATION", "Bearer a b"), ("headers-file", "X-T", "1\t2")]
    assert join_headers(fields) == {"Authorization": "Bearer a b", "X-T": "1\t2"}


def test_source_shows_no_value_of_a_header_and_no_proxy() -> None:
    full = source(
        headers={"Authorization": f"Bearer {SECRET}"},
        headers_file=Path("lake.token"),
        user=None,
        proxy=f"http://me:{SECRET}@proxy:3128",
        match="s3://lake/",
        access_key_id="A",
        secret_access_key=SECRET,
    )
    assert full.headers_file == "lake.token"
    for shown in (repr(full), str(full), f"{full.model_dump()}", full.model_dump_json()):
        assert SECRET not in shown
    assert pickle.loads(pickle.dumps(full)) == full


@pytest.mark.parametrize(
    ("given", "has_secret"),
    [
        ({}, False),
        ({"headers": {"X-Anything": "a"}}, True),
        ({"headers_file": "a", "headers_env": {"A": "B"}, "user": "me", "password_file": "b"}, False),
        ({"proxy": "http://proxy:3128"}, False),
        ({"proxy": ""}, False),
        ({"proxy": "http://me:hush@proxy:3128"}, True),
        ({"proxy": "http://token@proxy:3128"}, True),
        ({**LAKE, "access_key_id": "A", "secret_access_key": "hush"}, True),
        ({**LAKE, "access_key_id": "A", "secret_access_key_file": "hush"}, False),
    ],
)
def test_source_with_a_secret_of_its_own_is_known(given: dict[str, Any], has_secret: bool) -> None:
    assert source(**given).has_secret is has_secret
