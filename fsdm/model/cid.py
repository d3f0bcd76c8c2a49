"""CIDs as bytes: https://github.com/multiformats/cid. Pure."""

from __future__ import annotations

from typing import Final

VARINT_MAX: Final = 9  # bytes: https://github.com/multiformats/unsigned-varint
CID_V0: Final = b"\x12\x20"  # a sha2-256 of 32 bytes, and nothing else


def cid_at(data: bytes) -> bytes:
    """Return the CID that these bytes begin with; raises ValueError where there is none."""
    return data[: _parsed(data)[2]]


def multihash_of(cid: bytes) -> tuple[int, bytes]:
    """Return the code of the hash in a CID (https://github.com/multiformats/multicodec), and the digest.

    Raises:
        ValueError: it is no CID, or more follows it.
    """
    code, digest_at, end = _parsed(cid)
    if end < len(cid):
        raise ValueError(f"{len(cid) - end} bytes follow it")
    return code, cid[digest_at:]


def varint_at(data: bytes, at: int) -> tuple[int, int]:
    """Decode an unsigned varint; return it, and where it ends. Raises ValueError."""
    value = 0
    for number, byte in enumerate(data[at : at + VARINT_MAX]):
        value |= (byte & 0x7F) << (7 * number)
        if byte < 0x80:
            if byte == 0 and number > 0:
                raise ValueError("a number is longer than it need be")
            return value, at + number + 1
    raise ValueError("a number does not end")


def _parsed(data: bytes) -> tuple[int, int, int]:
    """Return the code of the hash, where its digest begins, and where the CID ends."""
    if data.startswith(CID_V0):
        code, digest_at, end = CID_V0[0], len(CID_V0), len(CID_V0) + CID_V0[1]
    else:
        version, at = varint_at(data, 0)
        if version != 1:
            raise ValueError(f"it has a CID of version {version}")
        _codec, at = varint_at(data, at)
        code, at = varint_at(data, at)
        size, digest_at = varint_at(data, at)
        end = digest_at + size
    if end > len(data):
        raise ValueError(f"it has a CID of {end} bytes")
    return code, digest_at, end
