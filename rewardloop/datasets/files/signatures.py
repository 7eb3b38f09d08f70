"""What a file is, by its first bytes, where that is not what its name says.

Owns the refusals of files that hold no rows at all: pointers, pages, archives,
encrypted files, and files whose compression is not the one of their ending.
Knows no format.
"""

from pathlib import Path

from rewardloop.errors import InvalidInput

NUM_BYTES = 512
"""How much of a file's beginning is looked at."""

_COMPRESSED = (
    (b"\x1f\x8b", "gzip", ".gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", ".zst"),
    (b"\xfd7zXZ\0", "xz", ".xz"),
    (b"BZh", "bzip2", ".bz2"),
)
_TABLES = (
    (b"PAR1", "Parquet", (".parquet",)),
    (b"ARROW1", "Arrow", (".arrow", ".feather")),
)
_NO_ROWS = (
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS, not the data itself. Run `git lfs pull` in its repository, or "
        "download the file itself",
    ),
    (b"<!doctype html", "is an HTML page, not data. Download the file itself (on a hub: `raw`)"),
    (b"<html", "is an HTML page, not data. Download the file itself (on a hub: `raw`)"),
    (b"<?xml", "is an XML file. Convert it to .jsonl, .csv or .parquet"),
    (b"PK\x03\x04", "is a zip archive (or an Excel file). Unpack it, or save it as .csv"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive. Unpack it first"),
    (b"PARE", "is an encrypted Parquet file. Write it again without encryption"),
    (b"Salted__", "is encrypted (openssl). Decrypt it first"),
    (b"-----begin pgp message", "is encrypted (PGP). Decrypt it first"),
    (b"age-encryption.org/", "is encrypted (age). Decrypt it first"),
    (b"$ansible_vault", "is encrypted (Ansible Vault). Decrypt it first"),
    (b"sqlite format 3\0", "is an SQLite database. Export its table as .csv"),
    (b"FEA1", "is a Feather file of version 1. Write it again with version 2, or as .parquet"),
    (b"\x89hdf", "is an HDF5 file. Convert it to .parquet or .jsonl"),
    (b"\x80\x04\x95", "is a Python pickle, which is never opened. Save it as .parquet or .jsonl"),
)


def check_signature(path: Path, start: bytes) -> None:
    """
    Raises:
        InvalidInput: the first bytes are of something else than the path's ending says.
    """
    lowered = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for prefix, words in _NO_ROWS:
        if start.startswith(prefix) or lowered.startswith(prefix.lower()):
            raise InvalidInput(f"{path} {words}.")
    ending = path.suffix.lower()
    for prefix, kind, wanted in _COMPRESSED:
        if start.startswith(prefix) and ending != wanted:
            raise InvalidInput(
                f"{path} is compressed with {kind}, but its name does not end in {wanted}. "
                f"Rename it so, with the ending of what it holds before it (as in "
                f"data.jsonl{wanted})."
            )
    for prefix, kind, endings in _TABLES:
        if start.startswith(prefix) and ending not in endings:
            raise InvalidInput(f"{path} is {kind} data. Rename it so that it ends in {endings[0]}.")
