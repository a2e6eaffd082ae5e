"""``import SampleData``: records what modules register, and loads it."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
import slicer.util


@dataclass
class SampleDataSource:
    """One registered sample: lists of equal length, one entry per file."""

    sampleName: str | None = None
    sampleDescription: str | None = None
    uris: Any = None
    fileNames: Any = None
    nodeNames: Any = None
    checksums: Any = None
    loadFiles: Any = None
    customDownloader: Any = None
    thumbnailFileName: str | None = None
    loadFileTypes: Any = None
    loadFileProperties: dict[str, Any] = field(default_factory=dict)

    def files(self) -> list[tuple[str, str, str]]:
        """Address, file name and node name of each file."""
        columns = [
            [one] if isinstance(one, str) else list(one or []) for one in (self.uris, self.fileNames, self.nodeNames)
        ]
        if len({len(column) for column in columns}) != 1:
            raise ValueError(f"sample {self.sampleName}: uris, fileNames and nodeNames must be of one length")
        return list(zip(*columns, strict=True))


class SampleDataLogic:
    """The part of the module's logic that others use."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileType: Any = "VolumeFile",
        loadFiles: Any = None,
        loadFileProperties: dict[str, Any] | None = None,
        checksums: Any = None,
    ) -> None:
        source = SampleDataSource(
            sampleName=sampleName,
            sampleDescription=sampleName,
            uris=uris,
            fileNames=fileNames,
            nodeNames=nodeNames,
            checksums=checksums,
            loadFiles=loadFiles,
            customDownloader=customDownloader,
            thumbnailFileName=thumbnailFileName,
            loadFileTypes=loadFileType,
            loadFileProperties=loadFileProperties or {},
        )
        if customDownloader is None:
            source.files()
        slicer.modules.sampleDataSources.setdefault(category, []).append(source)

    def sourceForSampleName(self, name: str) -> SampleDataSource | None:
        every = (source for sources in slicer.modules.sampleDataSources.values() for source in sources)
        return next((source for source in every if source.sampleName == name), None)

    def downloadSamples(self, name: str) -> list[Any]:
        source = self.sourceForSampleName(name)
        if source is None:
            raise ValueError(f"no sample named {name} is registered")
        return self.downloadFromSource(source)

    def downloadFromSource(self, source: SampleDataSource) -> list[Any]:
        if source.customDownloader is not None:
            result = source.customDownloader(source)
            return list(result) if isinstance(result, (list, tuple)) else [result]
        nodes = []
        for address, filename, name in source.files():
            path = Path(slicer.app.temporaryPath) / filename
            urllib.request.urlretrieve(address, path)
            nodes.append(slicer.util.loadVolume(str(path), {"name": name, "show": False}))
        return nodes
