"""Payloads as the outbox's file holds them: packed, so that its bound is worth 90,000 alerts instead of 40,000."""

from __future__ import annotations

import zlib

_MOST_BYTES = 1_000_000
"""Of an unpacked payload: a damaged row must not fill the memory."""
_WINDOW_BITS = -13
"""Without zlib's header and checksum (the row has one of its own), and memory for small texts."""
# Part of the file's format: with another dictionary, `outbox_file` needs another version. What comes most often stands
# at the end, where it costs least to point to.
_DICTIONARY = (
    b'"suspect": "maintenance", "cleared", "rule": "3 of 5", "2 of 3", .anogan.onnx", "kind": "anogan", '
    b'.statistics.onnx", "kind": "statistics", .cae.onnx", "kind": "cae", kHz and 2 more; 0.0 to 10.0 s and 3 more"}, '
    b'"where": null, "evidence": {"picture": null, "clip": null}}'
    b'{"schema": 1, "site": "plant-", "node": "hall-", "instance": "press", "machine": "rail-", "id": "", '
    b'"event": "raised", "incident": "", "sequence": 1, "time": "2026-11-28T00:00:00.000Z", '
    b'"clock_synchronised": false, '
    b'"clock_synchronised": true, "window": {"start": "2026-11-28T00:00:00.000Z", "end": "2026-11-28T00:00:00.000Z"}, '
    b'"rarity": 2., "threshold": 1., "clear_below": 0., "rule": "3 of 5", "level_dbfs": -30., "level_change_db": -0., '
    b'"detectors": [{"name": ".onnx", "kind": "", "sha256": "", "score": 1., "threshold": 1., "rarity": 1.}, '
    b'{"name": ".onnx", "kind": "", "sha256": "", "score": 1., "threshold": 1., "rarity": 1.}], '
    b'"agree": {"anomalous": [".onnx", ".onnx"], "of": 2}, "where": {"bands_hz": [[100.0, 200.0], [300.0, 400.0]], '
    b'"seconds": [[1.0, 2.0], [3.0, 4.0]], "words": "0.1 to 0.2 kHz, 0.3 to 0.4 kHz and 2 more; 1.0 to 2.0 s"}, '
    b'"evidence": {"picture": "/var/lib/edge-asd/press/evidence/rail-/20261128T000000Z-.png", "clip": null}}'
)


def pack(payload: str) -> bytes:
    """A payload as a row holds it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, _WINDOW_BITS, zdict=_DICTIONARY)
    return packer.compress(payload.encode()) + packer.flush()


def unpack(packed: object) -> str | None:
    """The payload of a row, packed or plain; None where that is damaged."""
    if isinstance(packed, str):
        return packed
    if not isinstance(packed, bytes):
        return None
    unpacker = zlib.decompressobj(_WINDOW_BITS, zdict=_DICTIONARY)
    try:
        payload = unpacker.decompress(packed, _MOST_BYTES)
        return payload.decode() if unpacker.eof and not unpacker.unused_data else None
    except (zlib.error, UnicodeDecodeError):
        return None
