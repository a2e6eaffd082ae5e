"""The lists of files in the extension's CMakeLists.txt are complete, and the tool that writes them works."""

import pytest
import update_lists


def test_the_lists_are_up_to_date():
    outdated = [str(path.relative_to(update_lists.ROOT)) for path in update_lists.outdated(update_lists.ROOT)]
    assert not outdated, f"run Testing/cmake/update_lists.py; outdated: {outdated}"


@pytest.fixture
def tree(tmp_path):
    for folder, name, _ in update_lists.LISTS:
        path = tmp_path / folder / "CMakeLists.txt"
        path.parent.mkdir(exist_ok=True)
        text = path.read_text() if path.exists() else "# a comment that stays\n"
        path.write_text(f"{text}set({name}\n  gone.py\n)\n")
    return tmp_path


def add(tree, *names):
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()


def test_scripts_and_resources_go_to_their_lists(tree):
    add(tree, "ChangeMapJointLib/core/grid.py", "ChangeMapJointLib/a.py", "ChangeMapJointLib/export/report.css")
    add(tree, "ChangeMapJointLib/core/__pycache__/grid.cpython-311.pyc", "Resources/Screenshots/a.png")
    add(tree, "Resources/SamplePair/make.py", "Resources/SamplePair/truth.json")
    assert len(update_lists.outdated(tree)) == 3
    for path, text in update_lists.updated(tree).items():
        path.write_text(text)
    assert not update_lists.outdated(tree)
    library = (tree / "ChangeMapJointLib" / "CMakeLists.txt").read_text()
    assert library.startswith("# a comment that stays\n")
    assert "set(MODULE_PYTHON_SCRIPTS\n  a.py\n  core/grid.py\n)\n" in library
    assert "set(MODULE_PYTHON_RESOURCES\n  export/report.css\n)\n" in library
    assert "set(RUNTIME_RESOURCES\n  SamplePair/truth.json\n)\n" in (tree / "Resources" / "CMakeLists.txt").read_text()


def test_a_missing_list_is_an_error():
    with pytest.raises(ValueError, match="0 lists named OTHER"):
        update_lists.with_list("set(NAME\n)\n", "OTHER", [])
