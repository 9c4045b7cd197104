"""A file that one process holds at a time."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from engine import log

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = log.get(__name__)

TAKEN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)


class Lock:
    """Holds `path` until it is closed or the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises BlockingIOError when another holder has it, OSError when the file cannot be."""
        self.file = path.open("a+b")
        try:
            _take(self.file.fileno())
        except OSError as error:
            if error.errno in TAKEN:
                self.file.close()
                raise BlockingIOError(error.errno, "in use") from error
            logger.warning("%s: this file system has no locks: %s", path, error.strerror)

    def close(self) -> None:
        """Let go. The file stays: whoever removed it could remove one that is taken again."""
        self.file.close()


def _take(number: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
