"""The owner's settings for the URLs of a source: headers, credentials, certificates, a proxy, bounds. Pure.

Invariant: no value of a header and no proxy is shown by a `Source`, nor by an error of one.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from fsdm.model.errors import InvalidInputError
from fsdm.model.limits import Count, Positive  # noqa: TC001 pydantic reads them

if TYPE_CHECKING:
    from collections.abc import Mapping

    StrPath = str | os.PathLike[str]

OWN: Final = frozenset(  # what a request is, and how its answer is read, is not for a source to say
    {"accept-encoding", "connection", "content-length", "expect", "host", "if-match", "if-modified-since"}
    | {"if-none-match", "if-range", "if-unmodified-since", "keep-alive", "proxy-authorization", "proxy-connection"}
    | {"range", "te", "trailer", "transfer-encoding", "upgrade"}
)
_URL: Final = r"(?i:https?)://[^\x00-\x20\x7f/?#@\\\\]+(?:/[^\x00-\x20\x7f?#]*)?"
_HTTP: Final = re.compile(rf"\A{_URL}\Z")
_OTHER: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\x00-\x20\x7f/?#@\\]*(?:/[^\x00-\x1f\x7f?#]*)?\Z")
_STORES: Final = frozenset({"s3", "gs", "az"})
_OF_STORES: Final = {  # settings that only some of them have
    "endpoint": _STORES,
    "region": frozenset({"s3", "gs"}),
    "path_style": frozenset({"s3", "gs"}),
    "access_key_id": frozenset({"s3", "gs"}),
    "secret_access_key": frozenset({"s3", "gs"}),
    "secret_access_key_file": frozenset({"s3", "gs"}),
    "session_token_file": frozenset({"s3"}),
    "sas_file": frozenset({"az"}),
    "unsigned": _STORES,
}
_OF_ALL: Final = frozenset({"match", "connections", "requests_per_s", "bytes_per_s"})
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token, RFC 9110 §5.6.2
_VALUE: Final = re.compile(r"[!-~](?:[\t -~]*[!-~])?")  # §5.5, without what is obsolete

FilePath = Annotated[
    str,
    BeforeValidator(lambda path: os.fspath(path) if isinstance(path, os.PathLike) else path),
    Field(pattern=r"\A[^\x00]+\z"),
]


def _checked_match(match: str) -> str:
    is_http = match.partition(":")[0].lower() in {"http", "https"}
    if not (_HTTP if is_http else _OTHER).match(match):
        raise ValueError("is no beginning of URLs without user, query and fragment")
    return match


class Source(BaseModel):
    """Settings for the URLs that begin with `match`; of several that match, the longest holds.

    The prefix ends with a whole origin or path segment. `headers` are values by name, `headers_file` is a file of lines
    `Name: value`, `headers_env` names the environment variable of each value. `user` and the password in
    `password_file` are for HTTP Basic. `ca` is a bundle, or a directory of CAs; `client_cert` and `client_key` are PEM
    files, and the key may stand in the former. `proxy` is a URL, or "" for none. An object store (s3, gs, az) is at an
    `endpoint`, in a `region`, with its buckets in the path (`path_style`) or in the host. Its requests are signed by
    `access_key_id` and the secret key (or its file, which has one line), with the token in `session_token_file`, or not
    at all (`unsigned`); `sas_file` has what goes into the query for az. At most `connections` requests run at once,
    no more than `requests_per_s` begin, and all together bring at most `limit_rate` bytes a second. Paths are relative
    to the data directory.

    Raises:
        InvalidInputError: naming the field that cannot be taken, never its value.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    match: Annotated[str, AfterValidator(_checked_match)]
    headers: dict[str, SecretStr] = {}
    headers_file: FilePath | None = None
    headers_env: dict[str, str] = {}
    user: Annotated[str, Field(pattern=r"\A[^\x00-\x1f\x7f:]+\z")] | None = None
    password_file: FilePath | None = None
    ca: FilePath | None = None
    client_cert: FilePath | None = None
    client_key: FilePath | None = None
    proxy: SecretStr | None = None
    endpoint: Annotated[str, Field(pattern=rf"\A{_URL}\z")] | None = None
    region: Annotated[str, Field(pattern=r"\A[A-Za-z0-9-]{1,64}\z")] | None = None
    path_style: bool | None = None
    access_key_id: Annotated[str, Field(pattern=r"\A[!-~]{1,256}\z")] | None = None
    secret_access_key: SecretStr | None = None
    secret_access_key_file: FilePath | None = None
    session_token_file: FilePath | None = None
    unsigned: bool = False
    sas_file: FilePath | None = None
    connections: Count | None = None
    requests_per_s: Positive | None = None
    bytes_per_s: Positive | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            match: str,
            headers: Mapping[str, str | SecretStr] = ...,
            headers_file: StrPath | None = None,
            headers_env: Mapping[str, str] = ...,
            user: str | None = None,
            password_file: StrPath | None = None,
            ca: StrPath | None = None,
            client_cert: StrPath | None = None,
            client_key: StrPath | None = None,
            proxy: str | SecretStr | None = None,
            endpoint: str | None = None,
            region: str | None = None,
            path_style: bool | None = None,
            access_key_id: str | None = None,
            secret_access_key: str | SecretStr | None = None,
            secret_access_key_file: StrPath | None = None,
            session_token_file: StrPath | None = None,
            unsigned: bool = False,
            sas_file: StrPath | None = None,
            connections: int | None = None,
            requests_per_s: float | None = None,
            limit_rate: float | None = None,
            bytes_per_s: float | None = None,  # its older name
        ) -> None: ...
    else:

        def __init__(self, /, **given: Any) -> None:
            said = "limit_rate" if "limit_rate" in given else "bytes_per_s"
            if {"limit_rate", "bytes_per_s"} <= given.keys():
                raise InvalidInputError("is limit_rate by another name, and both are there", field="bytes_per_s")
            try:
                super().__init__(**{"bytes_per_s" if name == said else name: one for name, one in given.items()})
            except ValidationError as e:
                raise _invalid(e, said) from None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        fields = [("headers", name, value.get_secret_value()) for name, value in self.headers.items()]
        fields += [("headers_env", name, "later") for name in self.headers_env]
        join_headers(fields + [("user", "Authorization", "later")] * (self.user is not None))
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user: it goes with password-file, and needs it")
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("client_key: it is of no use without client-cert")
        self._check_access()
        return self

    def _check_access(self) -> None:
        scheme = self.match.partition(":")[0].lower()
        is_http = scheme in {"http", "https"} | _STORES
        for name in sorted(self.model_fields_set - _OF_ALL):
            if (name in _OF_STORES and scheme not in _OF_STORES[name]) or (name not in _OF_STORES and not is_http):
                raise ValueError(f"{name}: it is of no use for {scheme}://")
        secrets = (self.secret_access_key, self.secret_access_key_file)
        if (self.access_key_id is None) != (secrets == (None, None)) or None not in secrets:
            raise ValueError("access_key_id: it goes with secret-access-key or secret-access-key-file, and needs one")
        if self.access_key_id is None and self.session_token_file is not None:
            raise ValueError("session_token_file: it is of no use without access-key-id")
        if self.unsigned and (self.access_key_id is not None or self.sas_file is not None):
            raise ValueError("unsigned: there is something to ask with beside it")
        if scheme == "az" and self.endpoint is None:
            raise ValueError("endpoint: az needs it, as https://ACCOUNT.blob.core.windows.net")

    @property
    def has_secret(self) -> bool:
        """Tell whether something here is to be read by its owner alone."""
        is_kept_here = bool(self.headers) or self.secret_access_key is not None
        return is_kept_here or "@" in (self.proxy.get_secret_value() if self.proxy is not None else "")


def join_headers(fields: list[tuple[str, str, str]]) -> dict[str, str]:
    """Join headers to values by name; each is given as where it stands, name and value.

    Raises:
        ValueError: one cannot be sent, is fsdm's own, or is there twice; no value is shown.
    """
    joined: dict[str, str] = {}
    for number, (where, name, value) in enumerate(fields, 1):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{where}: the name of header {number} is no name of a header")
        if name.lower() in OWN:
            raise ValueError(f"{where}: {name} is for fsdm to send")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{where}: the value of {name} is empty, or has more than printable ASCII in it")
        if name.lower() in (known.lower() for known in joined):
            raise ValueError(f"{where}: {name} is given twice")
        joined["Authorization" if name.lower() == "authorization" else name] = value
    return joined


def _invalid(error: ValidationError, rate: str) -> InvalidInputError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    said = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if not first["loc"]:
        field, _, said = said.partition(": ")
        return InvalidInputError(said, field=field)
    field = str(first["loc"][0])  # what follows may be a header that was meant to be a value
    field = rate if field == "bytes_per_s" else field
    if first["type"] == "extra_forbidden":
        hint = f"there are {', '.join(Source.model_fields).replace('bytes_per_s', 'limit_rate')}"
        return InvalidInputError("is no setting of a source", field=f"{field:.80}", hint=hint)
    if first["type"] == "string_pattern_mismatch":
        said = "has what it cannot have"
    return InvalidInputError(said, field=field)
