"""Small ICC profiles, written byte by byte: gray and CMYK, of which Pillow has none."""

import struct


def _icc(kind, space, connection, tags):
    """A profile of version 2.4 from its tags."""
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">L", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sLL", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">L4xL4s4s4s12x4s28x3l", start + len(body), 0x02400000, kind, space, connection, b"acsp", *_D50)
    return head.ljust(128, b"\0") + table + body


_D50 = tuple(round(65_536 * value) for value in (0.9642, 1.0, 0.8249))
_WHITE = b"XYZ " + struct.pack(">4x3l", *_D50)


def gray_profile(gamma):
    """Gray whose light is the level to the power of `gamma`."""
    curve = b"curv" + struct.pack(">4xLH", 1, round(gamma * 256))
    return _icc(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _WHITE, b"kTRC": curve})


def cmyk_profile(lab_of_cyan):
    """White paper, black ink (also wherever inks lie on each other), and a cyan of (L, a, b); the others are gray."""
    inks = [(100, 0, 0)] + [(0, 0, 0)] * 15  # C changes slowest
    inks[8], inks[4], inks[2] = lab_of_cyan, (50, 0, 0), (50, 0, 0)
    grid = bytes(round(value) for light, a, b in inks for value in (light * 2.55, a + 128, b + 128))
    steps = bytes(range(256))
    matrix = struct.pack(">9l", *(65_536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + struct.pack(">4xBBBx", 4, 3, 2) + matrix + steps * 4 + grid + steps * 3
    return _icc(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _WHITE, b"A2B0": table, b"A2B1": table})
