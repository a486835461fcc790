"""Writes small files, and computes their checksums."""

import hashlib


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
