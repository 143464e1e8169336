"""Files that are written whole or not at all, by whoever is allowed to, and never through a planted link.

What is written goes into a private folder beside its target, under a name hard to guess, and is renamed when it
is complete and on the disk. A process that is killed in between leaves such a folder behind; it is locked while its
owner lives, so the next write to the same target can tell that it is left over, and removes it.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from motes.errors import FileError

END = ".motes.tmp"
LONGEST = 160
"""Bytes of a file's name that its side names repeat; a longer one stands there by its digest."""
TRIES = 100


def lock(descriptor: int) -> bool:
    """Lock an open file or folder for as long as it is open; False if somebody else has it locked.

    The system frees the lock when its holder ends, however that happens. On Windows nothing is locked.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def side_name(path: Path, end: str) -> Path:
    """A name beside `path`, hidden, with another ending; short enough for every file system."""
    name = path.name if len(os.fsencode(path.name)) <= LONGEST else sha256(os.fsencode(path.name)).hexdigest()
    return path.with_name(f".{name}{end}")


def here(path: Path, descriptor: int) -> bool:
    """Whether what is open is still what stands at `path`."""
    try:
        found, mine = os.lstat(path), os.fstat(descriptor)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def must_be_replaceable(path: Path) -> None:
    """A FileError where `path` is something that no file may take the place of: a folder, a device, a pipe."""
    with suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise FileError(f"{path} is a {'folder' if stat.S_ISDIR(mode) else 'device'}; give the path of a file")


@contextmanager
def replacing(path: str | os.PathLike[str], *, previous: Path | None = None) -> Iterator[Path]:
    """A path to write one file to; when the block ends without an error, that file takes the place of `path`.

    A link at `path` is replaced and not followed.

    Args:
        path: the target; its folder is made.
        previous: where the present file goes, so that it is not lost; None is nowhere.

    Raises:
        FileError: the target is a folder or a device.
    """
    path = Path(path)
    must_be_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    folder, descriptor = _private(path)
    aside = folder / "new"
    try:
        yield aside
        os.chmod(aside, _usual(folder / "usual"))
        _flush(aside)
        if previous is not None and path.exists():
            _keep(path, folder / "previous", previous)
        os.replace(aside, path)
        _flush(path.parent)  # the rename itself must survive a power cut
    finally:
        _remove(folder, descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text to `path` as UTF-8, whole or not at all; surrogates, which UTF-8 does not have, as `\\udc80`."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def sweep(path: Path) -> None:
    """Remove what killed writers of `path` have left beside it."""
    start = side_name(path, ".").name
    with suppress(OSError), os.scandir(path.parent) as entries:
        left = [e.path for e in entries if e.name.startswith(start) and e.name.endswith(END)]
        for folder in map(Path, left):
            with suppress(OSError):
                descriptor = _opened(folder)
                if lock(descriptor):
                    _remove(folder, descriptor)
                else:
                    os.close(descriptor)


def _private(path: Path) -> tuple[Path, int]:
    """A new locked folder beside `path` that only its owner may use, and its descriptor."""
    for _ in range(TRIES):
        folder = Path(tempfile.mkdtemp(END, side_name(path, ".").name, path.parent))
        with suppress(FileNotFoundError):  # somebody who swept up came before the lock
            descriptor = _opened(folder)
            if lock(descriptor) and here(folder, descriptor):
                return folder, descriptor
            os.close(descriptor)
    raise FileError(f"no side file of {path} can be made: each was taken away before it could be locked")


def _usual(path: Path) -> int:
    """The mode that a new file of this process has; some writers make theirs for the owner alone."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0))


def _remove(folder: Path, descriptor: int) -> None:
    try:
        with suppress(OSError):
            for entry in folder.iterdir():
                entry.unlink()
            folder.rmdir()
    finally:
        os.close(descriptor)


def _keep(path: Path, aside: Path, previous: Path) -> None:
    """Let the present file stand at `previous` too, at no time without a file at `path` where links can be made."""
    try:
        os.link(path, aside)
        os.replace(aside, previous)
    except OSError:
        os.replace(path, previous)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
