"""The pixels of a picture that a browser has taken: 8 bits, no interlace."""

import struct
import zlib

Pixel = tuple[int, int, int]


def row_of(png: bytes, number: int) -> list[Pixel]:
    """Return the pixels of one row of a PNG, from the top."""
    at, packed, width, each = 8, b"", 0, 3
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, _, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", data)
            assert (depth, interlaced) == (8, 0)
            each = {2: 3, 6: 4}[colour]
        packed += data * (kind == b"IDAT")
        at += size + 12
    raw, stride, row = zlib.decompress(packed), width * each, bytearray(width * each)
    for y in range(number + 1):
        begin = y * (stride + 1)
        row = _unfiltered(raw[begin], raw[begin + 1 : begin + 1 + stride], row, each)
    return [(row[x], row[x + 1], row[x + 2]) for x in range(0, stride, each)]


def _unfiltered(kind: int, line: bytes, above: bytearray, each: int) -> bytearray:
    row = bytearray(line)
    for i in range(len(row)):
        left, up, corner = (row[i - each], above[i], above[i - each]) if i >= each else (0, above[i], 0)
        nearest = min((left, up, corner), key=lambda one: abs(left + up - corner - one))  # the first of equals
        row[i] = (row[i] + (0, left, up, (left + up) // 2, nearest)[kind]) & 255
    return row
