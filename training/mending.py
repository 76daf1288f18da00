"""What processes that were killed have left half done, put right at the next start."""

from __future__ import annotations

import logging
from pathlib import Path

from filelock import FileLock, Timeout

from ..wan.errors import UserError
from .checkpoints import PUBLISHING, CheckpointStore
from .listing import run_folders
from .records import LOCK, read_record

logger = logging.getLogger("tandem.training")


def mend_runs(root: Path, published: Path) -> None:
    """Finishes what the runs below `root` were publishing to the folder `published`, and takes away checkpoints that
    were half written or half deleted. Runs that another process trains are left alone; what cannot be mended is
    logged, and changes nothing."""
    for folder in run_folders(root):
        if not ((folder / PUBLISHING).exists() or any(folder.glob(".step_*"))):
            continue
        try:
            _mend(folder, published)
        except Timeout:
            continue
        except (UserError, OSError) as error:
            logger.warning("The run in %s cannot be mended: %s", folder, error)


def _mend(folder: Path, published: Path) -> None:
    with FileLock(folder / LOCK, timeout=0):
        record = read_record(folder)
        assert record is not None, "there is a run in this folder"
        store = CheckpointStore(folder, record["identity"]["name"])
        store.clear()
        store.finish_publishing(published)
