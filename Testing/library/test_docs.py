"""README and documentation: short enough, no dead link, every option and package listed, every command understood."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READ = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")), *PAGES]
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MOST_WORDS = 600
IMPORT = re.compile(r"^from (ChangeMapJointLib\.[\w.]+) import (.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def hooks():
    """``docs/hooks.py``; MkDocs is not needed for what it writes."""
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(markdown: str) -> int:
    """Words of a page, without code blocks, addresses of links and signs."""
    text = LINK.sub("]", CODE.sub("", markdown))
    return len([word for word in text.split() if re.search(r"\w", word)])


def menu(entries) -> set[str]:
    """The pages of a ``nav`` of MkDocs."""
    if isinstance(entries, str):
        return {entries}
    parts = entries.values() if isinstance(entries, dict) else entries
    return set().union(*map(menu, parts))


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub and MkDocs have it."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text("utf-8")), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


def commands():
    """Every ``changemap`` command in a code block, with the page that shows it."""
    for page in [ROOT / "README.md", *PAGES]:
        for block in CODE.findall(page.read_text("utf-8")):
            for line in block.splitlines():
                if line.startswith("changemap "):
                    yield pytest.param(line, id=f"{page.stem}: {line[:50]}")


def test_readme_is_read_in_two_minutes():
    assert words((ROOT / "README.md").read_text("utf-8")) <= MOST_WORDS


def test_words_are_counted_without_code_and_addresses():
    assert words("one [two](https://example.org/three) -\n```\nfour five\n```\n") == 2


@pytest.mark.parametrize("page", READ, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_dead_links(page, hooks):
    generated = {DOCS / name for name in hooks.GENERATED}
    dead = []
    for link in LINK.findall(CODE.sub("", page.read_text("utf-8"))):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if target in generated:
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


def test_every_page_is_in_the_menu_and_the_menu_has_no_other(hooks):
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert site["strict"]
    there = {page.relative_to(DOCS).as_posix() for page in PAGES}
    assert menu(site["nav"]) == there - {"python/index.md"}  # the hook adds that one


def test_options_page_has_every_option_with_its_default(hooks):
    from ChangeMapJointLib.comparison.config import RunConfig
    from ChangeMapJointLib.synthesis.draw import DrawOptions
    from ChangeMapJointLib.training.trainer import TrainingOptions

    rows = [line for line in hooks.options_page().splitlines() if line.startswith("| `")]

    def missing(options):
        for field in dataclasses.fields(options):
            value = getattr(options, field.name)
            if dataclasses.is_dataclass(value):
                yield from missing(value)
            elif not any(f"| `{field.name}` |" in row and f"| `{hooks._json(value)}` |" in row for row in rows):
                yield field.name

    for options in (RunConfig(), DrawOptions(), TrainingOptions()):
        assert not list(missing(options))


def test_meanings_of_options_come_from_their_docstring(hooks):
    @dataclasses.dataclass(frozen=True)
    class Options:
        """What to do.

        Attributes:
            size: of the thing,
                on two lines.
            other: see :class:`~some.where.Thing`.

        More text.
        """

        size: int = 3
        other: str = "a"

    assert hooks.attribute_texts(Options) == {
        "size": "of the thing, on two lines.",
        "other": "see :class:`~some.where.Thing`.",
    }
    assert '| `other` | `str` | `"a"` | see `Thing`. |' in "\n".join(hooks._section(Options(), ""))


def test_python_pages_have_every_public_module(hooks):
    library = ROOT / "ChangeMapJointLib"
    shown = "\n".join(hooks.python_page(name) for name in hooks.packages())
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in library.glob("*/**/*.py")
        if not path.name.startswith("_")
    }
    assert modules
    assert modules == set(re.findall(r"^::: (\S+)$", shown, re.MULTILINE))
    assert all(f"({name}.md)" in hooks.python_index() for name in hooks.packages())


def test_links_that_leave_the_pages_are_told_from_those_that_stay(hooks):
    assert hooks.outside("log/index.md", "registration.md") is None
    assert hooks.outside("log/index.md", "../method.md") is None
    assert hooks.outside("method.md", "../Resources/a.png") == Path("Resources/a.png")
    assert all((ROOT / path).exists() for path in hooks.pictures())
    assert len({path.name for path in hooks.pictures()}) == len(hooks.pictures())  # they end in one folder


@pytest.mark.parametrize("line", list(commands()))
def test_commands_in_the_documentation_have_options_that_there_are(line):
    import typer

    from ChangeMapJointLib.cli.main import app

    parts = shlex.split(line.split("    #")[0])
    known = typer.main.get_command(app).commands
    assert parts[1] in known or parts[1].startswith("--")
    if parts[1] in known:
        options = {name for one in known[parts[1]].params for name in one.opts} | {"--help"}
        assert {part for part in parts[2:] if part.startswith("--")} <= options


def test_scripts_of_the_results_are_there():
    page = (DOCS / "validation.md").read_text("utf-8")
    scripts = set(re.findall(r"`(\w+\.py)[ `]", page))
    assert len(scripts) > 10
    assert not [name for name in scripts if not (ROOT / "Testing" / "benchmarks" / name).exists()]


def test_offline_wheels_are_those_that_the_module_asks_for():
    page = (DOCS / "install.md").read_text("utf-8")
    requirements = (ROOT / "ChangeMapJoint" / "Resources" / "requirements.txt").read_text("utf-8")
    asked = re.findall(r"^(\w+)>=([\d.]+)(?:; extra == \"fast\")?$", requirements, re.MULTILINE)
    assert asked
    extra = re.findall(  # what is asked for when something is exported
        r"^(\w+>=[\d.]+); extra == \"(?:dicom|pdf)\"", requirements, re.MULTILINE
    )
    assert all(f'"{one}"' in page for one in extra if not one.startswith("pydicom"))  # Slicer brings that along
    from_slicer = dict(re.findall(r"^\| (\w+) \| ([\d.]+)\b.*\|$", page, re.MULTILINE))
    wheels = dict(re.findall(r"^(\w+)-([\d.]+)\S*\.whl$", page, re.MULTILINE))

    def number(version):
        return tuple(int(part) for part in version.split("."))

    for name, least in asked:
        assert from_slicer.get(name) == least or number(wheels[name]) >= number(least)


def test_every_extra_is_on_the_page_on_installing():
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    section = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    table = (DOCS / "install.md").read_text("utf-8").split("| extra | adds |")[1].split("\n\n")[0]
    assert len(extras) > 5
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == extras


def test_python_in_the_documentation_names_what_there_is():
    import ChangeMapJointLib as cmj

    blocks = [
        block
        for page in [ROOT / "README.md", *PAGES]
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    ]
    assert blocks
    results = set(dir(cmj.Result)) | {field.name for field in dataclasses.fields(cmj.Result)}
    for block in blocks:
        used = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Attribute)]
        names = [(node.value.id, node.attr) for node in used if isinstance(node.value, ast.Name)]
        assert {name for owner, name in names if owner == "cmj"} <= set(dir(cmj))
        assert {name for owner, name in names if owner == "result"} <= results


def test_what_the_documentation_imports_is_there():
    missing = []
    for page in [ROOT / "README.md", *PAGES]:
        for module, names in IMPORT.findall(page.read_text("utf-8")):
            body = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text("utf-8")).body
            there = {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
            missing += [f"{page.name}: {name}" for name in names.split(", ") if name not in there]
    assert not missing


def test_the_first_python_page_lists_the_front_door(hooks):
    import ChangeMapJointLib as cmj

    offered = {name for name in dir(cmj) if not name.startswith("_")} - set(hooks.packages())
    listed = set(re.findall(r"\[`cmj\.(\w+)`\]\[ChangeMapJointLib\.", hooks.python_index()))
    assert {"compare", "Result", "load_result"} <= listed
    assert listed <= offered


def test_no_result_table_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """README and docs show what the files of results hold."""
    monkeypatch.syspath_prepend(ROOT / "Testing" / "benchmarks")
    spec = importlib.util.spec_from_file_location("result_tables", ROOT / "Testing" / "benchmarks" / "result_tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    marked = [page for page in tables.PAGES if tables.MARKED.search(page.read_text("utf-8"))]
    assert len(marked) >= 2
    for page in marked:
        assert not tables.update(page, check=True), f"{page.name} is stale; run make tables"
