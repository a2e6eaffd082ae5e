"""PyTorch, imported when it is first used.

Its import takes longer than all others together, and most commands never compute with it. A file says::

    from ChangeMapJointLib.core.lazy_torch import Tensor, torch

and goes on as after ``import torch``. What is needed while the file itself is imported, such as a base class or a
decorator, comes from the real ``torch``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ChangeMapJointLib.core.process import uninterrupted

__all__ = ["Tensor", "functional", "torch"]

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional
else:

    class _LazyModule(ModuleType):
        """Stands for a module, which is imported when an attribute is asked for."""

        def __getattr__(self, name: str) -> object:
            if self.__name__ not in sys.modules:
                # torch catches errors of its optional parts: a cancellation raised in there would be lost
                with uninterrupted(deferred=True):
                    importlib.import_module(self.__name__.partition(".")[0])  # two threads must meet at the same lock
            return getattr(importlib.import_module(self.__name__), name)

    torch = _LazyModule("torch")
    functional = _LazyModule("torch.nn.functional")
    Tensor = Any  # for annotations; isinstance needs torch.Tensor
