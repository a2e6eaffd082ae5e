"""The same scans have the same rigid alignment: computed once for all tests, and for the runs that they fork.

It takes half of a small run, of which the tests make dozens on the same few scans. The tests of the alignment itself
(``test_rigid.py``) compute it, and so does what runs as a program of its own, such as ``python -m ChangeMapJointLib``.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

FOLDER = "CHANGEMAP_TEST_ALIGNMENTS"  # set by ``Testing/conftest.py``: the same for all workers of a session


def remember(patch: Any = None) -> None:
    """Let comparisons and trainings take an alignment that is there; of this process, without a ``MonkeyPatch``."""
    from ChangeMapJointLib.registration.rigid import any_size
    from ChangeMapJointLib.training import samples

    if FOLDER in os.environ:
        for module in (any_size, samples):
            (patch.setattr if patch else setattr)(module, "align_rigid", aligned)


def aligned(reference: Any, template: Any, *, options: Any = None, progress: Any = None) -> Any:
    """As ``align_rigid``; what it refuses is not kept."""
    from ChangeMapJointLib.core.progress import silent
    from ChangeMapJointLib.registration.rigid.align import align_rigid
    from ChangeMapJointLib.registration.rigid.verdict import RigidOptions

    options, progress = options or RigidOptions(), progress or silent
    if FOLDER not in os.environ:
        return align_rigid(reference, template, options=options, progress=progress)
    kept = Path(os.environ[FOLDER], f"{_key(reference, template, options)}.pickle")
    if kept.exists():
        progress(0.0, "Preparing")
        found = pickle.loads(kept.read_bytes())
        progress(1.0, "Aligned")
        return found
    found = align_rigid(reference, template, options=options, progress=progress)
    mine = kept.with_suffix(f".{os.getpid()}")
    mine.write_bytes(pickle.dumps(found))
    mine.replace(kept)
    return found


def _key(reference: Any, template: Any, options: Any) -> str:
    key = hashlib.sha256(repr(options).encode())
    for scan in (reference, template):
        volume = scan.volume
        key.update(repr((volume.grid, volume.unseen is None, volume.array.dtype)).encode())
        for array in (volume.array, scan.lungs.labels, *([] if volume.unseen is None else [volume.unseen])):
            key.update(array.tobytes())
    return key.hexdigest()
