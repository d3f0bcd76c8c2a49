"""An object store on loopback that recomputes each signature (AWS Signature Version 4), and refuses as a store does."""

import hashlib
import hmac
import re
import threading
import time
from calendar import timegm
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes, urlsplit

from tests.support.source import Source, etag_of

SKEW_S = 900
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, SignedHeaders=([a-z0-9;-]+), "
    r"Signature=([0-9a-f]{64})"
)


def signature_of(
    secret: str, region: str, url: str, headers: Mapping[str, str], signed: str, method: str = "GET"
) -> str:
    """The signature of a request, as the specification has it; headers by lower-case name, with the host."""
    parts, stamp = urlsplit(url), headers["x-amz-date"]
    query = sorted(
        (quote(name, "~"), quote(value, "~")) for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    canonical = [
        method,
        quote(unquote_to_bytes(parts.path), "/~"),
        "&".join(f"{name}={value}" for name, value in query),
        *(f"{name}:{' '.join(headers[name].split())}" for name in signed.split(";")),
        "",
        signed,
        headers["x-amz-content-sha256"],
    ]
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}".encode(), "sha256").hex()


class ObjectStore(Source):
    """A store whose buckets stand in the path; `keys` has secrets by key id, and `tokens` those that go with a key.

    It is in `region`, its clock is ahead by `ahead_s`, and `expired` are tokens that it takes no longer; where
    `signed_only` is off, requests without a signature are answered as well. `codes` are the refusals that it gave.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.keys = {"AKID": "se/cr+et:hush"}
        self.tokens: dict[str, str] = {}
        self.expired: set[str] = set()
        self.region = "us-east-1"
        self.ahead_s = 0.0
        self.signed_only = True
        self.says_region = True
        self.codes: list[str] = []

    def put_object(self, bucket: str, key: str, data: bytes) -> str:
        """Keep an object; its s3 URL."""
        self.put(f"/{bucket}/{quote(key, '/~')}", data)
        return f"s3://{bucket}/{key}"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        status, code, more = self._judge(handler)
        if not code:
            super()._answer(handler)
            return
        self.codes.append(code)
        body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>hush</Message>{more}</Error>".encode()
        handler.send_response_only(status)
        handler.send_header("Date", formatdate(time.time() + self.ahead_s, usegmt=True))
        handler.send_header("Content-Length", str(len(body)))
        if self.says_region and code in {"PermanentRedirect", "AuthorizationHeaderMalformed"}:
            handler.send_header("x-amz-bucket-region", self.region)
        handler.end_headers()
        handler.wfile.write(body)

    def _judge(self, handler: BaseHTTPRequestHandler) -> tuple[int, str, str]:
        """The status, code and more of a refusal; "" for a request that is right."""
        headers = {name.lower(): value for name, value in handler.headers.items()}
        if "authorization" not in headers:
            return (403, "AccessDenied", "") if self.signed_only else (200, "", "")
        found = _AUTHORIZATION.fullmatch(headers["authorization"])
        if found is None:
            return 400, "AuthorizationHeaderMalformed", ""
        key_id, day, region, signed, signature = found.groups()
        if key_id not in self.keys:
            return 403, "InvalidAccessKeyId", ""
        if region != self.region:
            return 400, "AuthorizationHeaderMalformed", f"<Region>{self.region}</Region>"
        stamp = headers["x-amz-date"]
        sent_at = timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
        if abs(sent_at - time.time() - self.ahead_s) > SKEW_S or not stamp.startswith(day):
            return 403, "RequestTimeTooSkewed", ""
        token = headers.get("x-amz-security-token", "")
        if token in self.expired:
            return 400, "ExpiredToken", ""
        if token != self.tokens.get(key_id, ""):
            return 400, "InvalidToken", ""
        needed = {"host", *(name for name in headers if name.startswith("x-amz-"))}
        if not needed <= set(signed.split(";")):
            return 403, "AccessDenied", ""
        wanted = signature_of(self.keys[key_id], self.region, handler.path, headers, signed, handler.command)
        return (200, "", "") if hmac.compare_digest(wanted, signature) else (403, "SignatureDoesNotMatch", "")


class WritableStore(ObjectStore):
    """A store that takes PUT with its conditions and DELETE, and lists what is there, `page` keys at a time.

    With `honours` off it takes no notice of conditions. `before_put` is called with the key of each PUT.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        handler = self._server.RequestHandlerClass
        handler.do_PUT = handler.do_DELETE = handler.do_GET  # type: ignore[attr-defined]
        self.page = 1000
        self.honours = True
        self.before_put: Callable[[str], object] = lambda _: None
        self.put_at: dict[str, float] = {}
        self.methods: list[tuple[str, str]] = []
        self._mutex = threading.Lock()

    def keys_below(self, bucket: str) -> list[str]:
        """The keys of a bucket."""
        below = f"/{bucket}/"
        return sorted(unquote(path).removeprefix(below) for path in self.files if path.startswith(below))

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        data = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.methods.append((handler.command, parts.path))
        if handler.command == "GET" and not parts.query:
            super()._answer(handler)
            return
        status, code, _ = self._judge(handler)
        if not code and handler.headers["x-amz-content-sha256"] not in {
            hashlib.sha256(data).hexdigest(),
            "UNSIGNED-PAYLOAD",
        }:
            status, code = 400, "XAmzContentSHA256Mismatch"
        if not code:
            status, code, data = self._do(handler, parts.path, dict(parse_qsl(parts.query)), data)
        body = f"<Error><Code>{code}</Code></Error>".encode() if code else data
        handler.send_response_only(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _do(
        self, handler: BaseHTTPRequestHandler, path: str, query: dict[str, str], data: bytes
    ) -> tuple[int, str, bytes]:
        if handler.command == "GET":
            return 200, "", self._listing(path.strip("/"), query)
        if handler.command == "DELETE":
            self.files.pop(path, None)
            return 204, "", b""
        self.before_put(path)
        with self._mutex:
            there = etag_of(self.files[path]) if path in self.files else None
            wanted, unless = handler.headers.get("If-Match"), handler.headers.get("If-None-Match")
            if self.honours and wanted is not None and there is None:
                return 404, "NoSuchKey", b""
            if self.honours and (wanted not in {None, there} or (unless == "*" and there is not None)):
                return 412, "PreconditionFailed", b""
            self.files[path], self.put_at[path] = data, time.time()
        return 200, "", b""

    def _listing(self, bucket: str, query: dict[str, str]) -> bytes:
        keys = [key for key in self.keys_below(bucket) if key.startswith(query["prefix"])]
        first = int(query.get("continuation-token", 0))
        rows = ""
        for key in keys[first : first + self.page]:
            at = time.gmtime(self.put_at[f"/{bucket}/{quote(key, '/~')}"])
            modified = f"<LastModified>{time.strftime('%Y-%m-%dT%H:%M:%S.000Z', at)}</LastModified>"
            rows += f"<Contents><Key>{key}</Key>{modified}</Contents>"
        more = first + self.page < len(keys)
        token = f"<NextContinuationToken>{first + self.page}</NextContinuationToken>" * more
        space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        cut = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        return f"<ListBucketResult {space}>{cut}{token}{rows}</ListBucketResult>".encode()
