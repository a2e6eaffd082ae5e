"""Workers for a cohort: a cluster on this machine, or one that is there already.

A worker process works on one pair at a time, with one thread: two pairs side by side on one thread each are faster
than one after another on two. It holds no data for Dask, so Dask's spilling and pausing are off; a worker that reaches
its memory limit is ended, and its pair is started again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from ChangeMapJointLib.comparison.config import choose_device
from ChangeMapJointLib.core.choices import DEFAULT_DEVICE
from ChangeMapJointLib.core.errors import Argument, InputError

if TYPE_CHECKING:
    from distributed import Client

MEMORY_GB = 5.0  # of a worker; a pair of 512 x 512 x 400 voxels peaks below
RETRIES = 2
CONNECT_S = 20.0
GPU = "GPU"  # the resource tag: each GPU worker has one, and each pair on a GPU asks for one
EXTRA = "cohort"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
# Ctrl-C reaches all processes of a terminal: workers must not die of it, the command ends them
PRELOAD = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nimport torch, ChangeMapJointLib.cohort.task"


@dataclass(frozen=True)
class ClusterOptions:
    """Where a cohort computes.

    Attributes:
        scheduler: address of a running Dask scheduler; None for workers on this machine.
        workers: on this machine; None for as many as its cores and memory allow, or one for each GPU.
        memory_gb: of one worker on this machine, in GB (10^9 bytes); it is ended when it reaches that.
        retries: how often a pair is restarted after its worker died.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    scheduler: str | None = None
    workers: int | None = None
    memory_gb: float = MEMORY_GB
    retries: int = RETRIES
    device: str = DEFAULT_DEVICE

    def __post_init__(self) -> None:
        rules = {
            "workers": (self.workers is None or self.workers >= 1, self.workers, "1 or more"),
            "memory": (0.1 <= self.memory_gb < math.inf, self.memory_gb, "0.1 or more, in GB"),
            "retries": (self.retries >= 0, self.retries, "0 or more"),
        }
        for name, (valid, value, expected) in rules.items():
            if not valid:
                raise InputError(f"found {value}", field=name, expected=expected)


@dataclass(frozen=True)
class Workers:
    """A connected cluster.

    Attributes:
        client: of the scheduler.
        device: for the pairs: ``cpu`` or ``cuda``, or ``auto`` where each worker chooses itself.
        resources: that a pair asks for.
        local: whether they are of this command, and end with it.
    """

    client: Client
    device: str
    resources: dict[str, float] | None
    local: bool

    @property
    def slots(self) -> int:
        """Pairs that run at the same time; 0 while there is no worker."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if self.resources:
            return int(sum(worker["resources"].get(GPU, 0) for worker in workers))
        return int(sum(worker["nthreads"] for worker in workers))


def local_size(memory_gb: float, *, cores: int | None = None, memory_bytes: int | None = None) -> int:
    """Return how many workers fit onto a machine: one per core, and at most 90 % of the memory in all.

    Args:
        memory_gb: of one worker.
        cores: of the machine that this process may use; asked for where None.
        memory_bytes: of the machine; asked for where None.

    Examples:
        >>> local_size(5.0, cores=16, memory_bytes=64 * 10**9)
        11
    """
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = psutil.virtual_memory().total if memory_bytes is None else memory_bytes
    return max(min(cores, int(0.9 * total / (memory_gb * 1e9))), 1)


@contextmanager
def open_workers(options: ClusterOptions) -> Iterator[Workers]:
    """Connect to the workers; those of this machine are started, and ended at the end of the block.

    Raises:
        InputError: Dask is not installed, or the scheduler cannot be reached.
    """
    try:
        import dask
        from distributed import Client
    except ModuleNotFoundError as error:
        raise InputError(
            f"the Python package {error.name} is missing",
            remedy=f'install it with: pip install "changemapjoint[{EXTRA}]"',
        ) from error
    if options.scheduler is not None:
        try:
            client = Client(options.scheduler, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(
                "cannot be reached",
                field="scheduler",
                value=options.scheduler,
                expected="the address of a running Dask scheduler, such as tcp://node1:8786",
            ) from error
        with client:
            yield Workers(client, options.device, _gpu_tag(options.device), local=False)
        return
    device = choose_device(options.device).type
    with (
        dask.config.set(_settings(options)),
        _local_cluster(options, device) as cluster,
        Client(cluster, timeout=CONNECT_S, set_as_default=False) as client,
    ):
        yield Workers(client, device, _gpu_tag(device), local=True)


def _gpu_tag(device: str) -> dict[str, float] | None:
    return {GPU: 1.0} if device == "cuda" else None


def _settings(options: ClusterOptions) -> dict[str, Any]:
    """Settings of Dask for workers on this machine."""
    before = dict.fromkeys(THREAD_VARIABLES, "1")
    return {
        "distributed.scheduler.allowed-failures": options.retries,
        "distributed.scheduler.worker-saturation": 1.0,  # no pair waits at a worker that may die
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.95,
        "distributed.nanny.pre-spawn-environ": {**before, "MALLOC_TRIM_THRESHOLD_": "65536"},
    }


def _local_cluster(options: ClusterOptions, device: str) -> Any:
    """Workers on this machine: one per core, or one per GPU, each with a nanny that restarts it."""
    from distributed import Nanny, Scheduler, SpecCluster

    gpus = _gpus() if device == "cuda" else ()
    count = options.workers or len(gpus) or local_size(options.memory_gb)
    common = {"nthreads": 1, "memory_limit": int(options.memory_gb * 1e9), "preload": [PRELOAD], "silence_logs": 50}
    workers = {}
    for number in range(count):
        tagged: dict[str, Any] = {}
        if gpus:  # further workers share the GPUs in turn
            tagged = {"resources": {GPU: 1}, "env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]}}
        workers[number] = {"cls": Nanny, "options": {**common, **tagged}}
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }
    return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=50)


def _gpus() -> tuple[str, ...]:
    """Names of the GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    import torch

    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(given) or tuple(str(number) for number in range(max(torch.cuda.device_count(), 1)))


def lost_scheduler(address: str | None) -> InputError:
    """The error for a scheduler that went away while the cohort was running."""
    return InputError(
        "the scheduler went away", field=Argument("scheduler", address), remedy="run the same command again to continue"
    )
