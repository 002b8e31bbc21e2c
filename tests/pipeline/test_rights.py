import gzip
import struct

import pytest

from pipeline.rights import opt_outs
from tests.faults.bad_records import encoded, noise

JPEG = encoded(noise(), "JPEG")
NAME, USE = b"c2pa.ai_training", b"notAllowed"


def segment(marker, payload):
    return JPEG[:2] + marker + struct.pack(">H", len(payload) + 2) + payload + JPEG[2:]


def assertion(label):
    cbor = (
        b"\xa1\x67entries\xa1" + bytes([0x60 | len(NAME)]) + NAME
        + b"\xa1\x63use" + bytes([0x60 | len(USE)]) + USE
    )  # fmt: skip
    description = bytes(16) + b"\x03" + label + b"\x00"
    boxes = struct.pack(">I", len(description) + 8) + b"jumd" + description
    boxes += struct.pack(">I", len(cbor) + 8) + b"cbor" + cbor
    jumbf = struct.pack(">I", len(boxes) + 8) + b"jumb" + boxes
    return segment(b"\xff\xeb", b"JP\x00\x01" + struct.pack(">I", 1) + jumbf)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("noai, noimageai", ["x-robots-tag:noai", "x-robots-tag:noimageai"]),
        ("NoIndex", ["x-robots-tag:noindex"]),
        ("somebot: noai, noindex", []),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST", []),
        ("all", []),
    ],
)
def test_a_robots_header_counts_where_it_is_said_to_all(value, expected):
    assert opt_outs(None, {"X-Robots-Tag": value}) == expected


@pytest.mark.parametrize("xmp", [
    b'<x plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"/>',
    b"<plus:DataMining>http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING</plus:DataMining>",
    b'<plus:DataMining rdf:resource="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"/>',
])  # fmt: skip
def test_the_iptc_data_mining_property_is_read(xmp):
    image = segment(b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\x00" + xmp)
    assert opt_outs(image, {}) == ["plus-data-mining:DMI-PROHIBITED-AIMLTRAINING"]


def test_a_wish_in_a_drawing_is_read_however_it_is_packed():
    drawing = (
        '<svg plus:DataMining="DMI-PROHIBITED" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"/>'
    )
    for content in (gzip.compress(drawing.encode()), drawing.encode("utf-16")):
        assert opt_outs(content, {}) == ["plus-data-mining:DMI-PROHIBITED"]


def test_an_allowance_is_no_opt_out():
    xmp = b'plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-ALLOWED"'
    assert opt_outs(segment(b"\xff\xe1", xmp), {}) == []
    assert opt_outs(JPEG, {}) == []


@pytest.mark.parametrize("label", [b"c2pa.training-mining", b"cawg.training-mining"])
def test_a_content_credential_is_read(label):
    assert opt_outs(assertion(label), {}) == ["c2pa:c2pa.ai_training=notAllowed"]


def test_a_content_credential_that_cannot_be_read_counts():
    damaged = assertion(b"c2pa.training-mining").replace(b"entries", b"entrees")
    assert opt_outs(damaged, {}) == ["c2pa:unreadable=notAllowed"]
