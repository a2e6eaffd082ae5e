"""Section Findings: the judged list in its sections, or the regions of the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt

from ChangeMapJointGui import findings_words as words
from ChangeMapJointGui.choices import chooseKey, fillChoices, onChosen
from ChangeMapJointGui.findings_items import fillItem, markItem
from ChangeMapJointGui.findings_order import nearest, readingOrder, sortedWithin
from ChangeMapJointGui.findings_words import LISTED, NUMBER, FindingRow
from ChangeMapJointLib.change.sections import BY_MAP

if TYPE_CHECKING:
    from ChangeMapJointGui.pair_facts import PairFacts

COLUMNS = LISTED + 1
GROUPS = ("possible", "explained", "stable")  # sections that can be folded; the findings always show
INDENT, GROUP_MARGIN = 14, 8  # pixels
REST_MS = 80  # since the threshold moved


class FindingsSection:
    """List, groups, previous and next.

    While the threshold moves, the views come first: the map's regions are listed once it rests, or is asked for them.

    Attributes:
        facts: dates and slices of the two scans of the run on screen; None without one.
    """

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui = panel, panel.ui
        self._listed: list[FindingRow] = []
        self.facts: PairFacts | None = None
        self._sort: tuple[int, bool] | None = None  # column and whether descending; None for the reading order
        self._toFirst = False  # a run came on screen: its first row is chosen
        self._placeMm: Any = None  # of the change that was selected last
        self._reference: Any = None  # the scan that it lies in
        self._items: list[Any] = []  # of the table, one for each row of the list
        self._shownGroups: set[str] = set()
        self._judged: dict[str, list[Any]] | None = None
        self._shown: tuple[Any, ...] = ()
        self._filling = self._waiting = False
        self._rest = qt.QTimer(self.ui.findingsTable)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.connect("timeout()", self.settle)
        table = self.ui.findingsTable
        table.columnCount = COLUMNS
        table.indentation = INDENT
        table.expandsOnDoubleClick = False  # a click does
        table.allColumnsShowFocus = True
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.header().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.header().setStretchLastSection(True)
        table.header().setSectionsClickable(True)
        table.header().connect("sectionClicked(int)", self.onSort)
        table.connect("itemSelectionChanged()", self.onSelected)
        table.connect("itemClicked(QTreeWidgetItem*,int)", self.onClicked)
        table.connect("itemExpanded(QTreeWidgetItem*)", self.onFolded)
        table.connect("itemCollapsed(QTreeWidgetItem*)", self.onFolded)
        onChosen(self.ui.listComboBox, self.onList)
        self.ui.previousFindingButton.connect("clicked(bool)", lambda checked=False: self.step(-1))  # noqa: ARG005
        self.ui.nextFindingButton.connect("clicked(bool)", lambda checked=False: self.step(1))  # noqa: ARG005
        self.ui.zoomCheckBox.connect("toggled(bool)", self.onZoom)

    # -- what is listed ---------------------------------------------------------------
    def showResult(self) -> None:
        """Offer the lists of the run that was loaded; :meth:`update` fills the table."""
        session = self.panel.session
        choices = () if session is None else session.listChoices
        names = words.listNames()
        fillChoices(self.ui.listComboBox, [(key, names[key]) for key in choices])
        for index, key in enumerate(choices):
            self.ui.listComboBox.setItemData(index, words.listHints()[key], qt.Qt.ToolTipRole)
        self.ui.listComboBox.enabled = len(choices) > 1
        self.ui.notSeenLabel.text = words.notSeenText(() if session is None else session.notSeen)
        self._shown = ()
        self._listed = []
        self._sort = None
        self.facts = None if session is None else _factsOf(session)
        self._toFirst = session is not None
        if session is not None:
            if session.results.reference is not self._reference:
                self._placeMm = None
            self._reference = session.results.reference

    def update(self, *, now: bool = False) -> None:
        """List the changes again if the run or a setting of the list has changed; for a new threshold alone later.

        Args:
            now: do not wait for the threshold to rest.
        """
        parameters, session = self.panel.parameters, self.panel.session
        self.ui.findingsCollapsibleButton.enabled = session is not None and session.hasFindings
        chooseKey(self.ui.listComboBox, parameters.listBy)
        byMap = session is None or self._listKey() == BY_MAP
        state: tuple[Any, ...] = (session, self._listKey())
        if byMap:
            state += (parameters.map, parameters.smallestVoxels, parameters.increases, parameters.decreases)
            state += (parameters.threshold,)
        self._waiting = not now and byMap and state != self._shown and state[:-1] == self._shown[:-1]
        if self._waiting:
            self._rest.start()
            return
        if state != self._shown:
            self._shown = state
            selected = self.selected
            if selected is not None:
                self._placeMm = selected.centre_mm
            self._judged = None if byMap else session.sections(self._listKey())
            self._listed = self._sorted(self._regions() if byMap else self._changes())
            self._fill(None if selected is None else selected.key)
            if self._toFirst:
                self._chooseFirst()
        else:
            self._fold()
            self.panel.reviewing.showDetails(self.selectedRow())
        self._showCount()

    def restyle(self) -> None:
        """Color the rows for the theme in use."""
        if self._listed:
            self._fill(None if self.selected is None else self.selected.key)

    def settle(self) -> None:
        """List now what waits for the threshold to rest."""
        if self._waiting and self.panel.parameters is not None:
            self.update(now=True)

    @property
    def listed(self) -> list[FindingRow]:
        """All rows of the list, folded ones included."""
        self.settle()
        return self._listed

    def _listKey(self) -> str:
        session, key = self.panel.session, self.panel.parameters.listBy
        choices = () if session is None else session.listChoices
        return key if key in choices else BY_MAP

    def _regions(self) -> list[FindingRow]:
        parameters, session = self.panel.parameters, self.panel.session
        if session is None or not session.hasFindings:
            return []
        signs = [sign for sign, shown in ((1, parameters.increases), (-1, parameters.decreases)) if shown]
        regions = session.findings(parameters.threshold, parameters.smallestVoxels, signs)
        rows = readingOrder([FindingRow(0, session.lists.sectionOf(region), region) for region in regions])
        return [row._replace(number=i) for i, row in enumerate(rows, start=1)]

    def _changes(self) -> list[FindingRow]:
        judged = self._judged or {}
        return [
            FindingRow(change.measured["id"], name, change) for name, changes in judged.items() for change in changes
        ]

    def _chooseFirst(self) -> None:
        """Choose the first row of a run that came on screen; after another run of the same scans, the same place."""
        self._toFirst = False
        shown = self._visible()
        if not shown:
            return
        row = nearest(shown, self._placeMm) or shown[0]
        self.ui.findingsTable.setCurrentItem(self._items[self._listed.index(row)])

    # -- order ------------------------------------------------------------------------
    def onSort(self, column: int) -> None:
        """Sort by a column; a second click turns the order round, a third one restores the reading order."""
        orders = [(column, False), (column, True), None]
        at = orders.index(self._sort) if self._sort in orders[:2] else -1
        self._sort = orders[at + 1]
        key = None if self.selected is None else self.selected.key
        self._listed = self._sorted(self._regions() if self._judged is None else self._changes())
        self._fill(key)

    def _sorted(self, rows: list[FindingRow]) -> list[FindingRow]:
        """Return the rows in the order that was chosen, within each section."""
        if self._sort is None:
            return rows
        review, sections = self.panel.session.review, None if self._judged is None else tuple(self._judged)
        return sortedWithin(sections, rows, *self._sort, self.facts, lambda row: review(row.change.key)["verdict"])

    @property
    def ownRows(self) -> list[FindingRow]:
        """The findings; by the map its regions."""
        return [row for row in self.listed if self._judged is None or row.section == "finding"]

    @property
    def byProbability(self) -> bool:
        """Whether the changes on screen were judged; otherwise they are the map's regions."""
        return self._judged is not None

    @property
    def rows(self) -> list[Any]:
        """The changes whose rows are on screen, from top to bottom; those of folded groups are not."""
        self.settle()
        return [row.change for row in self._visible()]

    @property
    def selected(self) -> Any:
        """The change whose row is selected, or None."""
        row = self.selectedRow()
        return None if row is None else row.change

    def selectedRow(self) -> FindingRow | None:
        """Return the selected row, or None."""
        item = self.ui.findingsTable.currentItem()
        index = -1 if item is None or not item.isSelected() else int(item.data(NUMBER, qt.Qt.UserRole))
        return self._listed[index] if 0 <= index < len(self._listed) else None

    def _visible(self) -> list[FindingRow]:
        folded = set(GROUPS) - self._unfolded() if self._judged is not None else set()
        return [row for row in self._listed if row.section not in folded]

    def _unfolded(self) -> set[str]:
        return set(self.panel.parameters.unfolded.split()) if self.panel.parameters is not None else set()

    # -- the table --------------------------------------------------------------------
    def _fill(self, key: int | None) -> None:
        """Fill the table; select the row of the change ``key`` if it shows."""
        table, session = self.ui.findingsTable, self.panel.session
        judged = self._judged is not None
        self._filling = True
        table.clear()
        table.setHeaderLabels(words.columnNames(judged))
        for column, hint in words.columnHints(judged).items():
            table.headerItem().setToolTip(column, hint)
        self._showOrder()
        table.rootIsDecorated = judged
        table.setColumnHidden(LISTED, judged or session is None or session.lists.own is None)
        self._items = []
        names, marks, sections = words.kindNames(), words.markNames(), words.sectionNames()  # once: translating is slow
        groups: dict[str, Any] = {}
        for i, row in enumerate(self._listed):  # in the order of the sections, the findings first
            grouped = judged and row.section in GROUPS
            if grouped and row.section not in groups:
                groups[row.section] = self._addGroup(row.section)
            item = qt.QTreeWidgetItem(groups[row.section] if grouped else table)
            item.setData(NUMBER, qt.Qt.UserRole, i)
            fillItem(item, row, words.rowTexts(row, judged, names, sections, self.facts))
            markItem(item, session.review(row.change.key)["verdict"], marks)
            self._items.append(item)
        for name, group in groups.items():
            group.setExpanded(name in self._unfolded())
        self._shownGroups = self._unfolded()
        table.setCurrentItem(None)
        table.clearSelection()
        shown = self._visible()
        for item, row in zip(self._items, self._listed, strict=True):
            if row.change.key == key and row in shown:
                table.setCurrentItem(item)
        self._filling = False
        self._showSelected()
        self._markViews()

    def _addGroup(self, name: str) -> Any:
        """Add the row that folds and unfolds a section."""
        table = self.ui.findingsTable
        count = sum(row.section == name for row in self._listed)
        hint = words.sectionHints()[name]
        group = qt.QTreeWidgetItem(table)
        group.setText(NUMBER, f"{words.sectionNames()[name]} ({count}): {hint}")
        group.setToolTip(NUMBER, hint)
        group.setData(NUMBER, qt.Qt.UserRole, -1)
        group.setData(NUMBER, qt.Qt.UserRole + 1, name)
        group.setFirstColumnSpanned(True)
        # else the column of numbers would be as wide as this text
        group.setSizeHint(NUMBER, qt.QSize(INDENT, table.fontMetrics().height() + GROUP_MARGIN))
        return group

    def _showOrder(self) -> None:
        header = self.ui.findingsTable.header()
        header.setSortIndicatorShown(self._sort is not None)
        if self._sort is not None:
            column, descending = self._sort
            header.setSortIndicator(column, qt.Qt.DescendingOrder if descending else qt.Qt.AscendingOrder)

    def _markViews(self) -> None:
        """Mark the changes whose rows are on screen in the views."""
        if self.panel.session is not None:
            self.panel.session.markFindings(self._visible(), self.selected)

    def _showCount(self) -> None:
        parameters, session = self.panel.parameters, self.panel.session
        rows = self.ownRows
        threshold = 0.0 if parameters is None else parameters.threshold
        self.ui.findingsCountLabel.text = words.countText(session, self._judged, rows, threshold)

    # -- groups -----------------------------------------------------------------------
    def onList(self, key: str) -> None:
        """Show another list of the run."""
        self.panel.parameters.listBy = key

    def onClicked(self, item: Any, column: int = 0) -> None:  # noqa: ARG002
        """Fold or unfold a group that was clicked; its arrow does so by itself."""
        if self._groupOf(item):
            item.setExpanded(not item.isExpanded())

    def onFolded(self, item: Any) -> None:
        """Remember a group that was folded or unfolded."""
        if self._filling:
            return
        name, unfolded = self._groupOf(item), self._unfolded()
        self._remember(unfolded | {name} if item.isExpanded() else unfolded - {name})

    def toggleGroups(self) -> None:
        """Unfold all groups; if none is folded, fold them all: a key was pressed."""
        groups = {row.section for row in self._listed if row.section in GROUPS} if self._judged is not None else set()
        if groups:
            unfolded = self._unfolded()
            self._remember(unfolded - groups if groups <= unfolded else unfolded | groups)

    def _remember(self, unfolded: set[str]) -> None:
        self.panel.parameters.unfolded = " ".join(name for name in GROUPS if name in unfolded)

    def _fold(self) -> None:
        """Fold and unfold the groups as the parameter node says."""
        unfolded = self._unfolded()
        if unfolded == self._shownGroups or self._judged is None:
            return
        self._shownGroups = unfolded
        table = self.ui.findingsTable
        self._filling = True
        for i in range(table.topLevelItemCount):
            item = table.topLevelItem(i)
            if self._groupOf(item):
                item.setExpanded(self._groupOf(item) in unfolded)
        row = self.selectedRow()
        if row is not None and row not in self._visible():
            table.setCurrentItem(None)
        self._filling = False
        self._showSelected()
        self._markViews()

    def _groupOf(self, item: Any) -> str:
        """Return the section that a row folds; empty for the row of a change."""
        return str(item.data(NUMBER, qt.Qt.UserRole + 1) or "")

    # -- one change -------------------------------------------------------------------
    def step(self, by: int) -> None:
        """Select the next (+1) or previous (-1) row that shows a change; after the last comes the first."""
        self.settle()
        shown = self._visible()
        if shown:
            row = self.selectedRow()
            at = shown.index(row) if row in shown else (-1 if by > 0 else 0)
            target = shown[(at + by) % len(shown)]
            self.ui.findingsTable.setCurrentItem(self._items[self._listed.index(target)])

    def onSelected(self) -> None:
        """Center all views on the selected change."""
        if self._filling:
            return
        row = self.selected
        self._showSelected()
        if row is not None:
            self._goTo(row)
        self._markViews()

    def _goTo(self, row: Any) -> None:
        """Center all views on a change, so large that it fills a third of each, if that is wanted."""
        self.panel.session.jumpTo(row, zoom=bool(self.ui.zoomCheckBox.checked))

    def onZoom(self, zoom: bool) -> None:
        """Zoom to the selected change, or show the whole scan at its place."""
        session, row = self.panel.session, self.selected
        if session is None:
            return
        if not zoom:
            session.fitViews()
        if row is not None:
            self._goTo(row)

    def showVerdict(self, row: FindingRow, verdict: str) -> None:
        """Show the reader's verdict on a change in its row, and in the count."""
        markItem(self._items[self._listed.index(row)], verdict, words.markNames())
        self._showCount()

    def _showSelected(self) -> None:
        for widget in (self.ui.previousFindingButton, self.ui.nextFindingButton):
            widget.enabled = bool(self._visible())
        self.panel.reviewing.show(self.selectedRow())


def _factsOf(session: Any) -> PairFacts:
    from ChangeMapJointGui.pair_facts import PairFacts  # not for an empty panel, which would open later

    return PairFacts(session.results)
