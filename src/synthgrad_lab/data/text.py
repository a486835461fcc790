"""Decodes text files; for any other file, raises an error that names its format."""

import codecs
import logging

from synthgrad_lab.data.signatures import reject_known_format

_MARKS = (  # the longer ones first: UTF-32's mark starts with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\b\t\n\v\f\r\x1a\x1b"))
"""Bytes that are in no text, in any encoding that extends ASCII; a tenth of random bytes are among them."""
_NOT_IN_CP1252 = set(b"\x81\x8d\x8f\x90\x9d")

log = logging.getLogger("synthgrad_lab.data")


def decode_text(content: bytes, where: str) -> str:
    """Decode the file `where` by its byte order mark, else as UTF-8, else (with a warning) as cp1252 or latin-1.

    Raises:
        ValueError: The file is packed, is no text, or does not match its own byte order mark.
    """
    reject_known_format(content, where, "a plain text")
    mark = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    if not mark:
        _reject_binary(content, where)
    try:
        text = content.decode(mark or "utf-8")
    except UnicodeDecodeError as error:
        if mark:
            raise ValueError(
                f"{where}: came the mark of {mark}, but {error.reason} at byte {error.start:,}: damaged, or no "
                "text; convert it to UTF-8"
            ) from error
        encoding = "latin-1" if set(content) & _NOT_IN_CP1252 else "cp1252"
        log.warning("%s is not UTF-8; read as %s", where, encoding)
        return content.decode(encoding)
    if "\0" in text:
        raise ValueError(f"{where}: came {mark} with NUL characters, wanted a plain text; is it one?")
    return text


def _reject_binary(content: bytes, where: str) -> None:
    if b"\0" in content:
        even, odd = content[::2].count(0), content[1::2].count(0)
        likely = "UTF-16LE" if odd > 9 * even else "UTF-16BE" if even > 9 * odd else ""
        remedy = f"if it is {likely}: iconv -f {likely} -t UTF-8 {where} > text.txt" if likely else "is it one?"
        raise ValueError(f"{where}: came {even + odd:,} NUL bytes, wanted a plain text; {remedy}")
    controls = len(content) - len(content.translate(None, _CONTROLS))
    if controls > 2 + len(content) // 100:
        share = f"{100 * controls / len(content):.0f} % of its bytes are control characters"
        raise ValueError(f"{where}: came binary data ({share}), wanted a plain text; if it is packed, unpack it")
