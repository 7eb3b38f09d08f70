"""From a file to numbered lines of text.

Owns compression and encoding, and the words in which the system's errors are
told. Lines are streamed. Knows no JSON, no CSV and no format.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from rewardloop.datasets.files.signatures import NUM_BYTES, check_signature
from rewardloop.errors import InvalidInput

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bzip2"}
"""The ending that says so, and the compression's name."""


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines with their numbers from 1, each with its newline.

    A line ends at a newline only: JSON texts may hold U+2028 and its like.

    Raises:
        InvalidInput: the file is missing, unreadable, cut off, or no UTF-8 text.
    """
    with told_plainly(path), _opened(path) as file:
        for number, line in enumerate(file, start=1):
            yield number, _decoded(path, number, line)


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        check_signature(path, file.read(NUM_BYTES))
    match path.suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        case ".xz":
            return cast(IO[bytes], lzma.open(path, "rb"))
        case ".bz2":
            return cast(IO[bytes], bz2.open(path, "rb"))
        case ".zst":
            return _zstd(path)
        case _:
            return path.open("rb")


def _zstd(path: Path) -> IO[bytes]:
    """By pyarrow, which notices a file that was cut off."""
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        if b"\0" not in line:
            return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        pass
    raise InvalidInput(
        f"{path} is not UTF-8 text: line {number} is binary or in another encoding. Save the file "
        "as UTF-8 (`iconv -t UTF-8`); the name of a compressed file must end in "
        f"{', '.join(COMPRESSIONS)}."
    )


@contextmanager
def told_plainly(path: Path) -> Iterator[None]:
    """Turns the system's errors into ones that name the file and what mends it."""
    try:
        yield
    except FileNotFoundError:
        raise InvalidInput(f"{path} does not exist. Check the path.") from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise _cut_off(path, error) from None
    except OSError as error:
        if error.errno is None:
            raise _cut_off(path, error) from None
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror or error}. Check its permissions."
        ) from None


def _cut_off(path: Path, error: Exception) -> InvalidInput:
    ending = path.suffix.lower()
    kind = COMPRESSIONS.get(ending, ending)
    return InvalidInput(
        f"{path} is not a whole {kind} file ({error}). Copy it again, or drop {ending} from its "
        "name if it is not compressed."
    )
