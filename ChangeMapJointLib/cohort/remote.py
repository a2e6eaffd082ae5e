"""What a Dask worker does with one pair."""

from __future__ import annotations

import socket
from dataclasses import replace

from ChangeMapJointLib import __version__
from ChangeMapJointLib.cohort.place import COHORT
from ChangeMapJointLib.cohort.task import PairTask, TaskOutcome, complete_pair
from ChangeMapJointLib.comparison.stages import Listener, ProgressEvent, ignore_progress
from ChangeMapJointLib.core.errors import Cancelled, InputError
from ChangeMapJointLib.core.parallel import limit_threads


def work_on(task: PairTask, version: str) -> TaskOutcome:
    """Bring one pair to its end on this worker.

    Args:
        task: the pair.
        version: of the library on the client.

    Returns:
        How it ended, without what only the pair's own record needs.

    Raises:
        InputError: this worker cannot take part in the cohort.
    """
    host = socket.gethostname()
    if version != __version__:
        raise InputError(
            f"the worker on {host} has changemapjoint {__version__}, this command {version}",
            remedy="install the same version on all workers",
        )
    if not (task.out / COHORT).exists():
        raise InputError(
            f"is not seen by the worker on {host}",
            field="out",
            value=task.out,
            remedy="give a folder on storage that all workers share",
        )
    one_thread()
    outcome = complete_pair(task, cancel_listener())
    if outcome.record is None:
        return outcome
    return replace(outcome, record=replace(outcome.record, outputs={}, inputs=None))


def one_thread() -> None:
    """Let the program and the numerical packages use one thread for work that this thread starts.

    The rigid alignment's metric keeps its two: its result must not depend on where it runs.
    """
    import SimpleITK as sitk
    import torch

    limit_threads(1)
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        import numba
    except ImportError:  # optional
        return
    numba.set_num_threads(1)


def cancel_listener() -> Listener:
    """Return a listener that stops the run when the client cancelled the task, was stopped or died.

    Dask cannot stop a thread: it marks the task, and whoever runs it must look.
    """
    from distributed import get_worker

    try:
        worker = get_worker()
        key = worker.get_current_task()
    except ValueError:  # not in a task
        return ignore_progress

    def listen(event: ProgressEvent) -> None:
        del event
        state = worker.state.tasks.get(key)
        if state is None or state.state == "cancelled":
            raise Cancelled("the cohort was stopped")

    return listen
