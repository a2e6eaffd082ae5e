"""``slicer.dicomDatabase``: values of tags that a test puts in."""

from __future__ import annotations


class DicomDatabase:
    """Holds what a test says about instances; nothing is read from files."""

    isOpen = True

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], str] = {}

    def put(self, instance: str, **tags: str) -> None:
        """Values of an instance: ``put("1.2.3", **{"0008,0022": "20240131"})`` (not in Slicer)."""
        self._values.update({(instance, tag.lower()): value for tag, value in tags.items()})

    def clear(self) -> None:
        """Forget all (not in Slicer)."""
        self._values.clear()

    def instanceValue(self, instance: str, tag: str) -> str:
        return self._values.get((instance, tag.lower()), "")

    def fileForInstance(self, instance: str) -> str:
        return instance if any(known == instance for known, _ in self._values) else ""

    def fileValue(self, path: str, tag: str) -> str:
        return self.instanceValue(path, tag)
