# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys: fresh ones each time, in the formats that OpenSSH, paramiko and dropbear read."""

import struct

from lab.ssh import KeyPair


def test_two_keys_differ() -> None:
    assert KeyPair.new() != KeyPair.new()


def test_paramiko_reads_what_we_made() -> None:
    pair = KeyPair.new()
    key = pair.paramiko()
    assert f"{key.get_name()} {key.get_base64()}" == pair.public


def test_dropbear_format_ends_with_the_public_key() -> None:
    pair = KeyPair.new()
    blob = pair.dropbear()
    (length,) = struct.unpack_from(">I", blob)
    assert blob[4 : 4 + length] == b"ssh-ed25519"
    assert len(blob) == 4 + length + 4 + 64
    assert pair.paramiko().asbytes().endswith(blob[-32:])
