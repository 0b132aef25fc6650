"""Images of a log's directory: taken as bytes, compared, copied as a crash would leave them.

It refuses to know what the files mean, but for the lock file: it names the machine's boot, and
an image in which that is another is what is found after a power cut.
"""

from __future__ import annotations

import shutil
from pathlib import Path

LOCK_FILE = "minilog.lock"
OTHER_BOOT = "4242 00000000-0000-4000-8000-000000000000\n"

Image = dict[str, bytes]


def image_of(root: Path) -> Image:
    """Return every file by its path below the root; the lock file, which has our pid, left out."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != LOCK_FILE
    }


def write_image(root: Path, image: Image) -> None:
    """Make a directory hold these files and no others."""
    if root.exists():
        shutil.rmtree(root)
    for name, data in image.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def crashed_copy(root: Path, target: Path, *, power_cut: bool) -> Path:
    """Copy a log that is open now to where no writer has it: after a kill or a power cut."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(root, target)
    if power_cut:
        (target / LOCK_FILE).write_text(OTHER_BOOT)
    return target


def logs_of(root: Path, topic: str, partition: int = 0) -> list[Path]:
    """Return the .log files of a partition, the last one last."""
    return sorted((root / topic / str(partition)).glob("*.log"))
