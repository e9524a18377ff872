"""Cuts the power at every call that changes a file, lake and state on disks of their own.

Both are loop-mounted ext4 file systems, shut down without flushing what was not synced; the
process dies with them, and the next one finds what their journals bring back.
"""

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.matrix import CUTS, NO_LOG_FLUSH, Ground, emptied
from tests.crash.zygote import lacking
from tests.soak.matrix import MEMORY, strike
from tests.soak.turns import Part, Turn, Untried

SIZE = 48 * 1024 * 1024
EXT4_IOC_SHUTDOWN = 0x8004587D
NEEDS = ("mkfs.ext4", "losetup", "mount", "umount")


class Disks(Ground):
    """A ground whose lake and state lie on a file system each."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._mounts = {folder / "lake": "", folder / ".etl": ""}

    def make(self) -> None:
        """Make both file systems and mount them."""
        for place in self._mounts:
            image = place.with_name(f"{place.name}.img")
            place.mkdir(parents=True)
            with image.open("xb") as file:
                file.truncate(SIZE)
            command("mkfs.ext4", "-qF", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
            self._mounts[place] = command("losetup", "--find", "--show", str(image)).strip()
            command("mount", self._mounts[place], str(place))
            emptied(place)  # lost+found
            place.chmod(0o700)

    def unmake(self) -> None:
        """Unmount both, and let the loop devices go."""
        for place, device in self._mounts.items():
            if place.is_mount():
                command("umount", str(place))
            if device:
                command("losetup", "--detach", device)

    def restore(self, saved: Path | None) -> None:
        """Fill both file systems with what was saved, all of it synced."""
        for place in self._mounts:
            emptied(place)
        (self.folder / "output.txt").unlink(missing_ok=True)
        if saved is not None:
            images = shutil.ignore_patterns("*.img")
            shutil.copytree(saved, self.folder, dirs_exist_ok=True, ignore=images)
        for place in self._mounts:
            synced(place)

    def come_back(self) -> None:
        """Mount again what the power cut has left."""
        for place, device in self._mounts.items():
            command("umount", str(place))
            command("mount", device, str(place))

    def forget_unsynced(self) -> bool:
        """Say whether a cut here really loses what was written and not synced."""
        for place in self._mounts:
            (place / "synced").write_text("1")
            synced(place)
            (place / "unsynced").write_text("1")
            root = os.open(place, os.O_RDONLY)
            fcntl.ioctl(root, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
            os.close(root)
        self.come_back()
        return all([path.name for path in place.iterdir()] == ["synced"] for place in self._mounts)


def synced(place: Path) -> None:
    """Make all of a file system durable."""
    root = os.open(place, os.O_RDONLY)
    ctypes.CDLL(None).syncfs(root)
    os.close(root)


def command(*words: str) -> str:
    """Run a command of the system; raises CalledProcessError with what it said."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextmanager
def mounted(place: Path) -> Iterator[Disks]:
    """Make the disks; raises Untried where they cannot be made or do not forget."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Untried("power cuts need Linux and root, who mounts file systems and shuts them down")
    if lack := lacking() or next((f"there is no {it}" for it in NEEDS if not shutil.which(it)), ""):
        raise Untried(lack)
    disks = Disks(place / "project")
    try:
        try:
            disks.make()
            forgets = disks.forget_unsynced()
        except (OSError, subprocess.CalledProcessError) as error:
            raise Untried(f"a loop-mounted ext4 could not be made: {error}") from error
        if not forgets:
            raise Untried("a file system that is shut down here keeps what was not synced")
        yield disks
    finally:
        disks.unmake()


async def run(turn: Turn) -> None:
    """Cut the power at points in random order until the time is over."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as place, mounted(Path(place)) as disks:
        await strike(turn, Path(place), disks, lambda _call: list(CUTS))


PART = Part("power", "a power cut at any call that changes a file loses or doubles no row", run)
