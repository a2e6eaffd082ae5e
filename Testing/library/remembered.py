"""The same scans have the same lungs and the same rigid alignment: computed once for all tests, and the runs they fork.

Both take more than half of a small run, of which the tests make dozens on the same few scans. The tests of the lungs
(``test_lungs.py``) and of the alignment (``test_rigid.py``) compute them, and so does what runs as a program of its
own, such as ``python -m ChangeMapJointLib``.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = "CHANGEMAP_TEST_ALIGNMENTS"  # set by ``Testing/conftest.py``: the same for all workers of a session


def remember(patch: Any = None) -> None:
    """Let comparisons and trainings take what is there; of this process, without a ``MonkeyPatch``."""
    from ChangeMapJointLib.comparison import compare
    from ChangeMapJointLib.lungs import segment
    from ChangeMapJointLib.registration.rigid import any_size
    from ChangeMapJointLib.training import samples

    if FOLDER in os.environ:
        put = patch.setattr if patch else setattr
        for module in (any_size, samples):
            put(module, "align_rigid", aligned)
        for module in (segment, compare):
            put(module, "segment_lungs", remembering(segment.segment_lungs))


def aligned(reference: Any, template: Any, *, options: Any = None, progress: Any = None) -> Any:
    """As ``align_rigid``."""
    from ChangeMapJointLib.core.progress import silent
    from ChangeMapJointLib.registration.rigid.align import align_rigid
    from ChangeMapJointLib.registration.rigid.verdict import RigidOptions

    options, progress = options or RigidOptions(), progress or silent
    scans = [(scan.volume, scan.lungs.labels) for scan in (reference, template)]

    def align() -> Any:
        return align_rigid(reference, template, options=options, progress=progress)

    return kept(_key("rigid", options, scans), align, progress)


def remembering(segment_lungs: Any) -> Any:
    """As ``segment_lungs``."""
    from ChangeMapJointLib.core.progress import silent
    from ChangeMapJointLib.lungs.segment import LungOptions
    from ChangeMapJointLib.scan.volume import Volume

    if segment_lungs.__name__ == "segmented":
        return segment_lungs

    def segmented(volume: Any, *, options: Any = None, progress: Any = silent) -> Any:
        if not isinstance(volume, Volume):
            return segment_lungs(volume)  # which refuses it
        options = options or LungOptions()

        def segment() -> Any:
            return segment_lungs(volume, options=options, progress=progress)

        return kept(_key("lungs", options, [(volume,)]), segment, progress)

    return segmented


def kept(key: str, compute: Callable[[], Any], progress: Any) -> Any:
    """What was computed for this key before; what is refused is not kept."""
    if FOLDER not in os.environ:
        return compute()
    path = Path(os.environ[FOLDER], f"{key}.pickle")
    if path.exists():
        progress(0.0, "Preparing")
        found = pickle.loads(path.read_bytes())
        progress(1.0, "Done")
        return found
    found = compute()
    mine = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
    mine.write_bytes(pickle.dumps(found))
    mine.replace(path)
    return found


def _key(kind: str, options: Any, scans: list[tuple[Any, ...]]) -> str:
    key = hashlib.sha256(f"{kind} {options!r}".encode())
    for volume, *more in scans:
        key.update(repr((volume.grid, volume.unseen is None, volume.array.dtype)).encode())
        for array in (volume.array, *more, *([] if volume.unseen is None else [volume.unseen])):
            key.update(array.tobytes())
    return key.hexdigest()
