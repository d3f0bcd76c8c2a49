"""A URL is read once: what is sent, to whom, and what of it may be shown."""

from base64 import b64encode

import pytest

from fsdm.model.errors import TransferError
from fsdm.transfer.http.target import Target, origin_of, shown


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://h", "http://h/"),
        ("HTTP://H:80/a", "http://h/a"),
        ("https://h:443/a?b=c&d=%2Fe%20f#part", "https://h/a?b=c&d=%2Fe%20f"),
        ("http://h:8080/a/../b/./c//d", "http://h:8080/a/../b/./c//d"),  # a key may have dots
        ("http://h/%41%7e%zz?x%", "http://h/%41%7e%zz?x%"),  # a signature is over the path as it stands
        ("http://h/é [\\|^]?é", "http://h/%C3%A9%20[%5C%7C%5E]?%C3%A9"),
        ("http://u:p@h/a", "http://h/a"),
        ("http://[::1]:81/a", "http://[::1]:81/a"),
        ("http://h:65535/", "http://h:65535/"),
        ("http://bücher.example/a", "http://xn--bcher-kva.example/a"),
    ],
)
def test_url_is_sent_as_it_stands_but_for_what_cannot_be_sent(url: str, sent: str) -> None:
    assert Target.of(url).url == sent


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/a",
        "http:///a",
        "http://h:65536/",
        "http://h:x/",
        "http://[::1/",
        "http://a b/",
        "http://EVIL:1\\@VICTIM:2/x",
        "http://h\x00/",
        "http://a%b/",
        "//h/a",
        "",
    ],
)
def test_what_is_no_url_of_http_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"scheme|cannot be read|Invalid|netloc"):
        Target.of(url)
    assert origin_of(url) == ("ftp://h" if url.startswith("ftp:") else "")


@pytest.mark.parametrize(
    ("url", "origin", "told"),
    [
        ("s3://lake/a?b#c", "s3://lake", "s3://lake/a"),
        ("S3://Lake/a", "s3://Lake", "s3://lake/a"),
        ("file:///srv/in/a", "file://", "file:///srv/in/a"),
        ("sftp://me:hush@h:22/a", "sftp://h:22", "sftp://h:22/a"),
        ("x://me:hush@h:2 2/a", "x://h:2 2", "(no URL)"),
    ],
)
def test_url_of_another_scheme_has_an_origin_and_no_secret(url: str, origin: str, told: str) -> None:
    assert (origin_of(url), shown(url)) == (origin, told)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://u@H:80/x", "http://h"),
        ("https://h:443", "https://h"),
        ("https://h:80/", "https://h:80"),
        ("http://[::1]:80/x", "http://[::1]"),
        ("http://h", "http://h"),
    ],
)
def test_origin_has_no_secret_and_no_default_port(url: str, origin: str) -> None:
    assert origin_of(url) == Target.of(url).origin == origin


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [("", None), ("u:p", b"u:p"), ("u", b"u:"), ("u:%C3%A9é:%40@", "u:éé:@@".encode()), ("ü:ψ", "ü:ψ".encode())],
)
def test_credentials_go_out_as_utf_8(userinfo: str, credentials: bytes | None) -> None:
    found = Target.of(f"http://{userinfo}{'@' * bool(userinfo)}h/").credentials
    assert found == (None if credentials is None else b64encode(credentials).decode())


@pytest.mark.parametrize(
    ("location", "to"),
    [
        ("/b", "https://h/b"),
        ("b", "https://h/a/b"),
        ("?q", "https://h/a/x?q"),
        ("//other/b", "https://other/b"),
        ("https://u:p@other/b#c", "https://other/b"),
        ("/\xc3\xa9", "https://h/%C3%A9"),
    ],
)
def test_location_is_taken_from_where_it_was_said(location: str, to: str) -> None:
    assert Target.of("https://h/a/x").redirected(location).url == to


@pytest.mark.parametrize(
    ("location", "cause"),
    [
        *(("ftp://h/", "policy"), ("file:///etc/passwd", "policy")),
        *((location, "redirect") for location in ("http://h/b", "http://[::1/", "/\xff", "//h:9x/")),
    ],
)
def test_location_that_leads_out_of_tls_or_nowhere_is_refused(location: str, cause: str) -> None:
    with pytest.raises(TransferError) as caught:
        Target.of("https://h/a").redirected(location)
    assert (caught.value.transient, caught.value.cause) == (False, cause)


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [
        ("http://h/a", "http://h/b", True),
        ("http://h/a", "https://h/b", True),
        ("http://h:8080/a", "https://h/b", False),
        ("http://h/a", "http://h:8080/b", False),
        ("http://h/a", "http://h.example/b", False),
        ("http://h/a", "https://other/b", False),
    ],
)
def test_credentials_are_kept_for_the_same_server_alone(one: str, other: str, kept: bool) -> None:
    assert Target.of(one).keeps_credentials(Target.of(other)) is kept


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://user:pw@example.org:8443/a/b.parquet?sig=x#y", "https://example.org:8443/a/b.parquet"),
        ("http://example.org", "http://example.org"),
        ("http://u@[::1]:80/x", "http://[::1]:80/x"),
        ("http://u:SECRETPW/x@h/", "(no URL)"),
        ("http://u:SECRET\\@h:99/x", "(no URL)"),
        ("http://[SECRET/", "(no URL)"),
    ],
)
def test_url_is_shown_without_secrets(url: str, seen: str) -> None:
    assert shown(url) == seen
