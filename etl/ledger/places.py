"""Where a ledger may lie: a folder of its owner's, on a disk whose locks can be trusted."""

from pathlib import Path
from typing import Final

from etl.errors import StateError, disk_advice, disk_reason


def make_state_dir(state_dir: Path) -> None:
    """Make the state directory, open to its owner alone."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"The state directory cannot be made: {disk_reason(error)}.",
            where=str(state_dir),
            advice=f"{disk_advice(error)} Or point ETL_STATE_DIR to another folder.",
        ) from error


_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "9p", "fuse.sshfs", "fuse.s3fs"}
)


def refuse_network_file_system(folder: Path) -> None:
    """Raise StateError if the folder lies where SQLite's locks cannot be trusted."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():  # macOS: nothing to read; SQLite's own checks remain
        return
    resolved = folder.resolve()
    best = ("", "")
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, place, kind, *_ = line.split(" ")
        point = place.replace("\\040", " ")
        if resolved.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    if best[1] in _NETWORK_FILE_SYSTEMS:
        raise StateError(
            f"The state directory lies on a network file system ({best[1]}), "
            "where SQLite cannot keep it safe.",
            where=str(folder),
            advice="Set ETL_STATE_DIR to a folder on a local disk; the lake may stay where it is.",
        )
