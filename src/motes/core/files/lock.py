"""The sole right to write to a path, against other processes and other threads."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from pathlib import Path
from typing import Self

from motes.core.files import atomic
from motes.errors import FileError, warn

MODE = os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
UNLOCKABLE = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
HELD: set[int] = set()
"""Descriptors of the locks of this process; a forked child closes its copies, or it would go on holding them."""


class Lock:
    """A lock on `path`, held from `with` to its end or until the process dies, when the system frees it.

    It lies on a side file that says who holds it, and which goes when the lock does.

    Raises:
        FileError: somebody else holds it, who is named; or nothing can be written there.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file: Path = atomic.side_name(path, ".lock")
        self.descriptor = -1

    def __enter__(self) -> Self:
        try:
            atomic.must_be_replaceable(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while self.descriptor < 0:
                self._try()
        except FileError:
            raise
        except OSError as error:
            raise FileError(f"{self.path} cannot be written: {error.strerror or error}") from error
        HELD.add(self.descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        if self.descriptor in HELD:
            HELD.discard(self.descriptor)
            if atomic.here(self.file, self.descriptor):
                self.file.unlink(missing_ok=True)
            os.close(self.descriptor)
        self.descriptor = -1

    def _try(self) -> None:
        """Take the lock, unless the side file went away meanwhile with the lock of another."""
        try:
            descriptor = os.open(self.file, MODE | os.O_RDWR, 0o666)
        except PermissionError:  # left by another user who was killed: it can be locked all the same
            descriptor = os.open(self.file, MODE & ~os.O_CREAT | os.O_RDONLY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileError(f"{self.path} cannot be written: {self.file} is no file of motes")
            if not self._locked(descriptor):
                raise FileError(
                    f"{self.path} is being written by {_holder(descriptor)}: two runs cannot share a file; "
                    "wait for it, stop it, or choose another path"
                )
            if atomic.here(self.file, descriptor):
                self._sign(descriptor)
                self.descriptor: int = descriptor
        finally:
            if self.descriptor != descriptor:
                os.close(descriptor)

    def _locked(self, descriptor: int) -> bool:
        try:
            return atomic.lock(descriptor)
        except OSError as error:
            if error.errno not in UNLOCKABLE:
                raise
            warn(f"the file system of {self.path} has no locks: see to it that no other run writes there")
            return True

    @staticmethod
    def _sign(descriptor: int) -> None:
        try:
            os.ftruncate(descriptor, 0)
            os.write(
                descriptor, f"{os.getpid()} {time.strftime('%Y-%m-%dT%H:%M:%S%z')} {socket.gethostname()}".encode()
            )
        except OSError:  # a full disk, or another user's file: the lock holds without a signature
            pass


def _holder(descriptor: int) -> str:
    """Who signed a lock, in words; what is no signature is not repeated."""
    words = os.pread(descriptor, 300, 0).decode("ascii", "replace").split()
    if len(words) != 3 or not words[0].isdigit() or not all(w.isprintable() for w in words):
        return "another run"
    pid, since, host = words
    return f"process {pid}{' (this one)' if int(pid) == os.getpid() else ''} on {host} since {since}"


def _forget() -> None:
    for descriptor in HELD:
        os.close(descriptor)
    HELD.clear()


if os.name == "posix":
    os.register_at_fork(after_in_child=_forget)
