"""The text that a file holds, or an error that names what it holds instead."""

from __future__ import annotations

import codecs

from synthgrad_lab.data.signatures import refuse
from synthgrad_lab.running.record import note

_MARKS = (  # the longer ones first: UTF-32's mark starts with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\b\t\n\v\f\r\x1a\x1b"))
"""Bytes that no text has, in any encoding that starts with ASCII's characters; a tenth of what is random."""


def decoded(content: bytes, where: str) -> str:
    """Decode a file's bytes: by their byte order mark, else as UTF-8, else (with a note) as cp1252 or latin-1.

    Args:
        content: the bytes of the file.
        where: the file's name, for notes and errors.

    Raises:
        ValueError: if they are packed or no text, or not in the encoding of their own mark.
    """
    refuse(content, where, "a plain text")
    encodings = [next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")]
    if encodings == ["utf-8"]:
        _refuse_binary(content, where)
        encodings += ["cp1252", "latin-1"]
    fault = ""
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            fault = f"{error.reason} at byte {error.start:,}"
            continue
        if encoding in ("cp1252", "latin-1"):
            note(f"{where} is not UTF-8; read as {encoding}")
        if "\0" in text:
            raise ValueError(f"{where}: came {encoding} with NUL characters, wanted a plain text; is it one?")
        return text
    raise ValueError(
        f"{where}: came the mark of {encodings[0]}, but {fault}: damaged, or no text; convert it to UTF-8"
    )


def _refuse_binary(content: bytes, where: str) -> None:
    if b"\0" in content:
        even, odd = content[::2].count(0), content[1::2].count(0)
        likely = "UTF-16LE" if odd > 9 * even else "UTF-16BE" if even > 9 * odd else ""
        cure = f"if it is {likely}: iconv -f {likely} -t UTF-8 {where} > text.txt" if likely else "is it one?"
        raise ValueError(f"{where}: came {even + odd:,} NUL bytes, wanted a plain text; {cure}")
    controls = len(content) - len(content.translate(None, _CONTROLS))
    if controls > 2 + len(content) // 100:
        share = f"{100 * controls / len(content):.0f} % of its bytes are control characters"
        raise ValueError(f"{where}: came binary data ({share}), wanted a plain text; if it is packed, unpack it")
