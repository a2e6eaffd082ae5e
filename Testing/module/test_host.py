"""The stand-in host behaves as Slicer does in the points that tests of the module rely on."""

import sys
from pathlib import Path

import ctk
import numpy as np
import pytest
import qt
import slicer
from slicerhost import close_module, dialogs, errors, load_module, open_module, user

MODULE = Path(__file__).parent / "data" / "MiniChange" / "MiniChange.py"


@pytest.fixture
def widget():
    return open_module(load_module(MODULE))


@pytest.fixture
def scans():
    """Current and prior, 20 x 30 x 40 voxels; the current one has a block of +600 HU."""
    prior = np.full((20, 30, 40), -800, np.int16)
    current = prior.copy()
    current[8:12, 10:20, 15:25] += 600
    return [slicer.util.addVolumeFromArray(a, name=n) for a, n in ((current, "Current"), (prior, "Prior"))]


def colored_pixels(view="Red"):
    pixels = slicer.app.layoutManager().sliceWidget(view).view().picture().astype(int)
    return int((np.abs(pixels[..., 0] - pixels[..., 2]) > 20).sum())


def run(widget, scans):
    user.choose(widget.ui.currentSelector, scans[0])
    user.choose(widget.ui.priorSelector, scans[1])
    user.click(widget.ui.applyButton)


# Attributes and signals as PythonQt has them


def test_a_property_is_an_attribute():
    button = qt.QPushButton("Apply")
    assert button.text == "Apply"
    button.enabled = False
    assert not button.isEnabled()
    assert button.name == ""
    with pytest.raises(TypeError):
        button.text()


def test_a_typing_error_in_a_property_raises():
    for thing in (qt.QPushButton(), ctk.ctkSliderWidget(), slicer.qMRMLNodeComboBox(), qt.QTimer()):
        with pytest.raises(AttributeError, match="creating new attributes on C\\+\\+ objects"):
            thing.tooltip = "wrong case"
        with pytest.raises(AttributeError):
            thing._hidden = 1


def test_a_static_method_hides_the_property_of_its_name():
    """Seen in Slicer 5.12 with PythonQt 4.1: ``timer.singleShot = True`` kept a module from opening."""
    timer = qt.QTimer()
    with pytest.raises(AttributeError):
        timer.singleShot = True
    timer.setSingleShot(True)
    timer.interval = 5
    assert timer.interval == 5


def test_a_python_subclass_takes_attributes():
    class Panel(qt.QWidget):
        pass

    panel = Panel()
    panel.anything = 3
    assert panel.anything == 3


def test_properties_are_typed():
    slider, spin, label = qt.QSlider(), qt.QDoubleSpinBox(), qt.QLabel()
    with pytest.raises(AttributeError, match="of type 'int' does not accept"):
        slider.value = 0.5
    with pytest.raises(AttributeError, match="does not accept"):
        label.enabled = None
    spin.value = 3
    label.text = 5
    assert (spin.value, label.text) == (3.0, "5")


def test_an_unknown_signal_is_reported():
    slider = ctk.ctkSliderWidget()
    assert slider.connect("valueChanged(double)", print)
    for wrong in ("valueChange(double)", "valueChanged(int)", "valueChanged"):
        with errors.expected(wrong, "connect"):
            assert not slider.connect(wrong, print)


def test_an_exception_in_a_slot_is_reported_and_goes_no_further():
    button = qt.QPushButton()

    def fail():
        raise KeyError("in the slot")

    button.connect("clicked()", fail)
    with errors.expected("in the slot", "slot"):
        button.click()


def test_slots_get_no_more_arguments_than_they_take_and_can_be_disconnected():
    button, seen = qt.QPushButton(), []
    button.checkable = True

    def no_arguments():
        seen.append(())

    button.connect("toggled(bool)", seen.append)
    button.connect("toggled(bool)", no_arguments)
    button.click()
    assert seen == [True, ()]
    assert button.disconnect("toggled(bool)", no_arguments)
    button.click()
    assert seen == [True, (), False]


def test_exceptions_in_timers_and_observers_are_reported():
    def fail(*_):
        raise KeyError("late")

    with errors.expected("late"):
        qt.QTimer.singleShot(0, fail)
        slicer.app.processEvents()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
    node.AddObserver("ModifiedEvent", fail)
    with errors.expected("late"):
        node.SetName("new")


def test_errors_of_vtk_are_reported():
    with errors.expected("", "vtk"):
        slicer.vtkMRMLSliceNode().SetOrientation("Nonsense")


# .ui files


@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        ('property name="singleStep"', 'property name="step"', "no property 'step'"),
        ('class="QCheckBox"', 'class="QCheckBocks"', "unknown widget class QCheckBocks"),
        ("<receiver>priorSelector", "<receiver>prior", "cannot be made"),
    ],
)
def test_mistakes_in_a_ui_file_are_reported(tmp_path, old, new, reported):
    text = (MODULE.parent / "Resources/UI/MiniChange.ui").read_text()
    assert old in text
    (tmp_path / "wrong.ui").write_text(text.replace(old, new))
    with errors.expected(reported, "ui"):
        slicer.util.loadUI(str(tmp_path / "wrong.ui"))


def test_the_children_of_a_form_are_found_by_name():
    form = slicer.util.loadUI(str(MODULE.parent / "Resources/UI/MiniChange.ui"))
    ui = slicer.util.childWidgetVariables(form)
    assert type(ui.thresholdSlider) is ctk.ctkSliderWidget
    assert ui.thresholdSlider.maximum == 1.0
    assert not hasattr(form, "thresholdSlider")


# A module


def test_apply_shows_a_map_and_the_slider_changes_it(widget, scans):
    assert not widget.ui.applyButton.enabled
    assert user.entries(widget.ui.currentSelector) == ["None", "Current", "Prior"]
    run(widget, scans)
    assert widget.ui.statusLabel.text == "threshold 0.30"
    assert colored_pixels() > 0
    user.drag(widget.ui.thresholdSlider, 0.5, 0.9)
    assert widget._parameterNode.threshold == 0.9
    assert colored_pixels() == 0
    user.type_text(widget.ui.thresholdSlider, "0.40")
    assert widget._parameterNode.threshold == 0.4
    assert colored_pixels() > 0
    user.click(widget.ui.showMapCheckBox)
    assert colored_pixels() == 0
    user.choose(widget.ui.methodComboBox, "Difference")
    assert widget._parameterNode.method.name == "SUBTRACT"


def test_a_failure_is_shown_to_the_user_and_reported(widget, scans):
    small = slicer.util.addVolumeFromArray(np.zeros((2, 2, 2), np.int16), name="Small")
    with errors.expected("differ in size", "slot"):
        run(widget, [scans[0], small])
    assert dialogs.texts("error") == ["The change map failed.\n\nThe two scans differ in size."]


def test_the_scene_comes_back_from_a_file(widget, scans, tmp_path):
    run(widget, scans)
    user.drag(widget.ui.thresholdSlider, 0.55)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    assert widget.ui.currentSelector.currentNode() is None
    assert widget._parameterNode.threshold == 0.3
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    widget.initializeParameterNode()
    assert widget.ui.thresholdSlider.value == 0.55
    assert widget.ui.currentSelector.currentNode().GetName() == "Current"


def test_reload_leave_and_cleanup_leave_nothing_connected(widget, scans):
    run(widget, scans)
    before = widget
    widget.onReload()
    after = slicer.modules.MiniChangeWidget
    assert after is not before
    assert type(after).__module__ == "MiniChange"
    assert not before.Observations
    assert after._parameterNode.threshold == 0.3
    close_module("MiniChange")
    assert not after.Observations
    slicer.mrmlScene.Clear()


def test_the_self_test_and_the_sample_data_of_a_module(widget):
    assert [source.sampleName for source in slicer.modules.sampleDataSources["Mini"]] == ["MiniPair"]
    slicer.selfTests["MiniChange"](msec=0)


def test_shortcuts_reach_the_module(widget):
    slicer.util.mainWindow().activateWindow()  # another test may have closed it
    slicer.app.processEvents()
    user.press(slicer.util.mainWindow(), qt.Qt.Key_M, qt.Qt.ControlModifier)
    assert widget._parameterNode.showMap is False


def test_selecting_another_module_leaves_this_one(widget):
    slicer.util.selectModule("Data")
    assert not widget.parent.isEntered
    assert widget._parameterNode is None
    slicer.util.selectModule("MiniChange")
    assert slicer.util.selectedModule() == "MiniChange"
    assert widget.parent.isEntered
    with pytest.raises(RuntimeError):
        slicer.util.selectModule("Nonsense")


def test_quitting_unloads_the_modules(widget):
    seen = []
    slicer.app.connect("aboutToQuit()", lambda: seen.append("quit"))
    slicer.app.quit_for_test()
    assert seen == ["quit"]
    assert not widget.Observations


# Parameters


def test_parameters_are_checked(widget):
    p = widget._parameterNode
    for name, value, error in (
        ("threshold", 2.0, ValueError),
        ("threshold", None, ValueError),
        ("threshold", np.float32(0.5), TypeError),
        ("showMap", 1, TypeError),
        ("current", slicer.vtkMRMLTextNode(), TypeError),
    ):
        with pytest.raises(error):
            setattr(p, name, value)
    assert p.isCached("threshold")
    with pytest.raises(ValueError, match="Cannot find a param"):
        p.isCached("nothing")


def test_a_widget_that_slicer_cannot_connect_is_refused(widget):
    with pytest.raises(RuntimeError, match="Unable to create GUI connector"):
        widget._parameterNode.connectParametersToGui({"threshold": slicer.qMRMLSliderWidget()})


# Dialogs, processes, views


def test_dialogs_are_recorded_and_answered():
    dialogs.answer("confirmYesNo", True)
    dialogs.answer("openFile", "chosen.nrrd")
    assert slicer.util.confirmYesNoDisplay("Install?")
    assert qt.QFileDialog.getOpenFileName(None, "Open") == "chosen.nrrd"
    slicer.util.infoDisplay("done")
    assert dialogs.texts() == ["Install?", "Open", "done"]
    with errors.expected("nobody answers", "dialog"):
        assert not slicer.util.confirmOkCancelDisplay("Really?")


def test_a_process_reports_its_output_and_end():
    lines, ends = [], []
    process = qt.QProcess()
    process.connect("readyReadStandardOutput()", lambda: lines.append(process.readAllStandardOutput().data()))
    process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: ends.append((code, status)))
    process.start(sys.executable, ["-c", "print('hello'); raise SystemExit(3)"])
    user.wait_until(lambda: ends)
    assert b"".join(bytes(line) for line in lines).strip() == b"hello"
    assert ends == [(3, qt.QProcess.NormalExit)]


LAYOUT = """
<layout type="horizontal" split="true">
 <item><view class="vtkMRMLSliceNode" singletontag="Red">
  <property name="orientation" action="default">Axial</property>
 </view></item>
 <item><view class="vtkMRMLSliceNode" singletontag="MiniPrior">
  <property name="orientation" action="default">Coronal</property>
  <property name="viewlabel" action="default">P</property>
  <property name="viewcolor" action="default">#8080FF</property>
  <property name="viewgroup" action="default">1</property>
 </view></item>
</layout>"""


def test_a_layout_makes_its_views(scans):
    manager = slicer.app.layoutManager()
    changes = []
    manager.connect("layoutChanged(int)", changes.append)
    manager.layoutLogic().GetLayoutNode().AddLayoutDescription(900, LAYOUT)
    manager.setLayout(900)
    assert changes == [900]
    assert manager.shown_views == ["Red", "MiniPrior"]
    view = manager.sliceWidget("MiniPrior")
    node = view.mrmlSliceNode()
    assert (node.GetOrientation(), node.GetViewGroup(), node.GetLayoutLabel()) == ("Coronal", 1, "P")
    assert view.mrmlSliceCompositeNode().GetID() == "vtkMRMLSliceCompositeNodeMiniPrior"
    view.mrmlSliceCompositeNode().SetBackgroundVolumeID(scans[0].GetID())
    view.fitSliceToBackground()
    assert view.view().picture().max() > 0
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    assert manager.shown_views == ["Red", "Green", "Yellow"]
    slicer.mrmlScene.RemoveNode(node)
    assert "MiniPrior" not in manager.sliceViewNames()


def test_keys_reach_a_view(scans):
    slicer.util.setSliceViewerLayers(background=scans[0], fit=True)
    view = slicer.app.layoutManager().sliceWidget("Red")
    keys = []
    interactor = view.sliceView().interactor()
    for event in ("KeyPressEvent", "KeyReleaseEvent"):
        interactor.AddObserver(event, lambda caller, name: keys.append((name, caller.GetKeySym())))
    user.hold(view.sliceView(), qt.Qt.Key_K)
    user.let_go(view.sliceView(), qt.Qt.Key_K)
    assert keys == [("KeyPressEvent", "k"), ("KeyReleaseEvent", "k")]


def test_mouse_and_wheel_work_as_in_slicer(scans):
    slicer.util.setSliceViewerLayers(background=scans[0], fit=True)
    slicer.app.processEvents()
    view = slicer.app.layoutManager().sliceWidget("Red")
    offset = view.sliceLogic().GetSliceOffset()
    user.turn_wheel(view.sliceView(), 2)
    assert abs(view.sliceLogic().GetSliceOffset() - offset) == pytest.approx(2.0)
    position = [0.0] * 3
    crosshair = slicer.util.getNode("Crosshair")
    for x in (100, 140):
        user.move_mouse(view.sliceView(), x, 100, qt.Qt.ShiftModifier)
        before, position = position, [0.0] * 3
        crosshair.GetCursorPositionRAS(position)
    assert position[0] != before[0]
    assert crosshair.GetCrosshairRAS()[0] == pytest.approx(position[0])


def test_the_window_can_be_pictured(widget, scans, tmp_path):
    run(widget, scans)
    user.screenshot(tmp_path / "window.png")
    assert (tmp_path / "window.png").stat().st_size > 10_000
