"""What hosts ask of the repository: Slicer's Extensions Index, GitHub's forms, citation, release."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml
from update_lists import ROOT

from ChangeMapJointLib import __version__

INDEX = ROOT / "Resources" / "ExtensionsIndex" / "ChangeMapJoint.json"
RAW = "https://raw.githubusercontent.com/ChangeMapJoint/ChangeMapJoint/main/"
SCHEMA = {  # slicer-extension-catalog-entry-schema-v1.0.2.json
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "tier": int,
}
MOST_MB = 100  # the index takes no larger repository


def in_cmake(name: str) -> str:
    """What the extension's CMakeLists.txt sets a variable to."""
    text = (ROOT / "CMakeLists.txt").read_text("utf-8")
    return re.search(rf'set\({name} "([^"]*)"\)', text)[1]


def test_entry_of_the_extensions_index_follows_its_schema():
    content = INDEX.read_bytes()
    assert b"\r" not in content
    entry = json.loads(content)
    assert {name: type(value) for name, value in entry.items()} == SCHEMA
    assert entry["scm_url"].startswith("https://")


def test_entry_of_the_extensions_index_agrees_with_cmake():
    entry = json.loads(INDEX.read_text("utf-8"))
    project = re.search(r"^project\((\w+)\)", (ROOT / "CMakeLists.txt").read_text("utf-8"), re.MULTILINE)[1]
    assert project == INDEX.stem
    assert not project.lower().startswith("slicer")  # the index refuses such names
    assert entry["category"] == in_cmake("EXTENSION_CATEGORY")
    assert entry["build_dependencies"] == in_cmake("EXTENSION_DEPENDS").split()
    assert in_cmake("EXTENSION_HOMEPAGE").removesuffix("#readme") == entry["scm_url"].removesuffix(".git")


@pytest.mark.parametrize("variable", ["EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"])
def test_pictures_of_the_extension_are_in_the_repository(variable):
    addresses = in_cmake(variable).split()
    assert addresses
    for address in addresses:
        assert address.startswith(RAW)
        assert (ROOT / address.removeprefix(RAW)).read_bytes().startswith(b"\x89PNG")


def test_meta_information_has_the_form_of_the_extension_template():
    names = in_cmake("EXTENSION_CONTRIBUTORS")
    assert re.fullmatch(r"[^()]+ \([^()]+\)(, [^()]+ \([^()]+\))*", names)  # Name (Organization)
    module = (ROOT / "ChangeMapJoint" / "ChangeMapJoint.py").read_text("utf-8")
    assert f'self.parent.contributors = ["{names}"]' in module
    assert "cmake_minimum_required(VERSION 3.28.0...3.28.0 FATAL_ERROR)" in (ROOT / "CMakeLists.txt").read_text("utf-8")
    assert sum("/module-" in address for address in in_cmake("EXTENSION_SCREENSHOTURLS").split()) >= 3


def test_nothing_of_the_module_changes_the_path_of_imports():
    """Its folder holds "Testing" and "Resources", which would hide other packages of these names in Slicer."""
    for path in (ROOT / "ChangeMapJoint").rglob("*.py"):
        assert "sys.path" not in path.read_text("utf-8").replace("``sys.path``", ""), path


def test_results_name_no_folder_of_one_machine():
    for path in (ROOT / "Testing" / "benchmarks" / "results").glob("*.json"):
        assert not re.search(r"(?<![\w.)])/(?:home|mnt|root|tmp|Users|work)/", path.read_text("utf-8")), path.name


def test_links_of_the_help_lead_somewhere():
    module = (ROOT / "ChangeMapJoint" / "ChangeMapJoint.py").read_text("utf-8")
    linked = re.findall(r'href="\{docs\}/([\w-]+\.md)"', module)
    assert "radiologists.md" in linked
    assert all((ROOT / "docs" / name).is_file() for name in linked)
    sample = re.search(r'SAMPLE = "(\w+)"', (ROOT / "ChangeMapJoint/ChangeMapJointGui/sample_data.py").read_text())[1]
    assert f"**{sample}**" in (ROOT / "docs" / "radiologists.md").read_text("utf-8")


def test_repository_is_small_enough_and_has_a_licence():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("no git repository here")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert sum(path.stat().st_size for path in files if path.is_file()) < MOST_MB * 2**20
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")[:200]


def test_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == __version__
    [paper] = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Kohlbrandt",
        "Moltz",
        "Heldmann",
        "Hering",
        "Lellmann",
    ]


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_forms_and_workflows_are_yaml_with_what_github_needs(path):
    content = yaml.safe_load(path.read_text("utf-8"))
    if path.parent.name == "workflows":
        assert content["permissions"] == {"contents": "read"}
        assert content["jobs"]
        for job in content["jobs"].values():
            assert set(job.get("needs", [])) <= set(content["jobs"]) or job["needs"] in content["jobs"]
    elif path.name != "config.yml":
        assert {"name", "description", "body"} <= set(content)
        assert "data of patients" in path.read_text("utf-8") or path.name == "wish.yml"
