"""What the documentation site adds to the pages in ``docs``: the options and Python pages, pictures, equations, links.

MkDocs calls the ``on_*`` functions (see ``mkdocs.yml``). The option tables come from the option classes themselves, so
they always show the defaults that the program uses.
"""

from __future__ import annotations

import ast
import dataclasses
import html as entities
import inspect
import pkgutil
import re
import sys
import typing
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
GENERATED = ("options.md", "python/index.md")  # pages that are made here; those of the packages come on top
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?([\w.]+)`")
ROLE_HTML = re.compile(r":(?:class|func|meth|mod|data|attr|exc):<code>~?([\w.]+)</code>")
QUALIFIER = re.compile(r"[A-Za-z_][\w.]*[.](?=[A-Za-z])")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


# -- options --------------------------------------------------------------------------


def options_page() -> str:
    """The page that lists every option of ``run.json``, of synthetic pairs and of training, with its default."""
    from ChangeMapJointLib.change.method_table import METHODS
    from ChangeMapJointLib.comparison.config import RunConfig
    from ChangeMapJointLib.synthesis.draw import DrawOptions
    from ChangeMapJointLib.training.trainer import TrainingOptions

    methods = [f"| `{m.name}` | {m.title} | {m.threshold:g} | {m.candidates:g} |" for m in METHODS.values()]
    return "\n".join(
        [
            "# Options",
            "",
            "This page is generated from the option classes. An options file is JSON: it names the options that differ "
            "from the defaults, and everything else keeps its default. `run.json` of any run shows all of them.",
            "",
            "```json",
            '{"method": "sequential", "registration": {"working_mm": 1.0}, "findings": {"threshold": 0.5}}',
            "```",
            "",
            "An unknown name or a value out of range ends the command with exit code 2 and one line that names it.",
            "",
            "## Methods",
            "",
            "| method | is | default threshold of the findings | of the candidates, which a threshold slider shows |",
            "|---|---|---|---|",
            *methods,
            "",
            "## Comparing two scans",
            "",
            "`changemap run --config FILE`, *Options file* in the panel of 3D Slicer, and `config` of `compare` in "
            "Python.",
            "",
            *_section(RunConfig(), ""),
            "## Synthetic pairs",
            "",
            "`changemap synthesize --config FILE`.",
            "",
            *_section(DrawOptions(), ""),
            "## Training",
            "",
            "`changemap train --config FILE`. [Train your own network](training.md) says what the configurations that "
            "ship are for.",
            "",
            *_section(TrainingOptions(), ""),
        ]
    )


def _section(options: Any, name: str) -> list[str]:
    """Table of one options object, then the objects inside it; ``name`` is its path in the JSON, empty at the top."""
    kind = type(options)
    lines = [f"### `{name}`", ""] if name else []
    lines += [_sentence(kind), "", "| option | type | default | meaning |", "|---|---|---|---|"]
    meanings, types, inner = attribute_texts(kind), typing.get_type_hints(kind), []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        path = f"{name}.{field.name}" if name else field.name
        if dataclasses.is_dataclass(value):
            inner.append((path, value))
            shown = f"see [`{path}`](#{path.replace('.', '').lower()})"
        else:
            shown = f"`{_json(value)}`"
        meaning = _cell(meanings.get(field.name, ""))
        lines.append(f"| `{field.name}` | {_type(types[field.name])} | {shown} | {meaning} |")
    lines.append("")
    for path, value in inner:
        lines += _section(value, path)
    return lines


def attribute_texts(kind: type[Any]) -> dict[str, str]:
    """What the docstring of an options class says of each field, from its ``Attributes:`` section."""
    section = re.search(r"^Attributes:\n(.*?)(?=^\S|\Z)", inspect.getdoc(kind) or "", re.DOTALL | re.MULTILINE)
    found: dict[str, str] = {}
    name = ""
    for line in section[1].splitlines() if section else ():
        start = re.match(r" {4}(\w+)(?: \([^)]*\))?: (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _sentence(kind: type[Any]) -> str:
    """The docstring before its sections, as one paragraph."""
    text = re.split(r"^Attributes:", inspect.getdoc(kind) or "", maxsplit=1, flags=re.MULTILINE)[0]
    return ROLE.sub(_role, " ".join(text.split())).replace("``", "`")


def _type(hint: Any) -> str:
    """A type as a reader of JSON needs it."""
    if dataclasses.is_dataclass(hint):
        return "object"
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{_json(one)}`" for one in typing.get_args(hint))
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return f"`{_cell(QUALIFIER.sub('', text))}`"


def _json(value: Any) -> str:
    """A default as it would stand in an options file."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_json(one) for one in value)}]"
    if dataclasses.is_dataclass(value):
        fields = ", ".join(f'"{f.name}": {_json(getattr(value, f.name))}' for f in dataclasses.fields(value))
        return f"{{{fields}}}"
    words = {True: "true", False: "false", None: "null"}
    if value is None or isinstance(value, bool):
        return words[value]
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def _cell(text: str) -> str:
    """``text`` as the cell of a table."""
    return ROLE.sub(_role, text).replace("``", "`").replace("|", "\\|")


def _role(match: re.Match[str]) -> str:
    return f"`{match[1].rsplit('.', 1)[-1]}`"


# -- Python ---------------------------------------------------------------------------


def packages() -> list[str]:
    """The packages of the library, in the order of their names."""
    return sorted(one.name for one in pkgutil.iter_modules([str(ROOT / "ChangeMapJointLib")]) if one.ispkg)


def python_page(package: str) -> str:
    """The page of one package: every public module in it, by its docstrings."""
    folder = ROOT / "ChangeMapJointLib" / package
    below = (path.relative_to(ROOT).with_suffix("") for path in sorted(folder.rglob("*.py")))
    modules = [".".join(path.parts) for path in below if not path.name.startswith("_")]
    return "\n\n".join([f"# {package}", _docstring(folder / "__init__.py"), *(f"::: {name}" for name in modules)])


def python_index() -> str:
    """The first page: what the package offers at its top, and what each of the packages in it is for."""
    front = [f"| [`cmj.{name}`][{home}.{name}] | {_cell(_summary(home, name))} |" for home, name in front_door()]
    rows = [f"| [{name}]({name}.md) | {_cell(_docstring(_init(name)).splitlines()[0])} |" for name in packages()]
    return "\n".join(
        [
            "# Python",
            "",
            "`import ChangeMapJointLib as cmj`; [the tutorial](../researchers.md) shows how the parts work together. "
            "These pages are generated from the docstrings.",
            "",
            "## The front door",
            "",
            "| name | is |",
            "|---|---|",
            *front,
            "",
            "## Packages",
            "",
            "| package | holds |",
            "|---|---|",
            *rows,
        ]
    )


def front_door() -> list[tuple[str, str]]:
    """Module and name of everything that ``ChangeMapJointLib`` offers, in the order of its imports."""
    tree = ast.parse((ROOT / "ChangeMapJointLib" / "__init__.py").read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [(str(node.module), node.names) for node in imports if str(node.module).startswith("ChangeMapJointLib.")]
    return [(module, one.name) for module, names in ours for one in names]


def _summary(module: str, name: str) -> str:
    """The first sentence of a function or class, which is not imported."""
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text("utf-8"))
    found = [node for node in tree.body if getattr(node, "name", "") == name]
    text = ast.get_docstring(found[0]) if found and isinstance(found[0], (ast.FunctionDef, ast.ClassDef)) else None
    return (text or "").split("\n\n")[0].replace("\n", " ")


def _init(package: str) -> Path:
    return ROOT / "ChangeMapJointLib" / package / "__init__.py"


def _docstring(path: Path) -> str:
    """The docstring of a module, which is not imported."""
    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or path.parent.name


# -- MkDocs ---------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Add the Python pages to the menu."""
    pages = [{"Overview": "python/index.md"}, *({name: f"python/{name}.md"} for name in packages())]
    config.nav.append({"Python": pages})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here, and the pictures that lie elsewhere in the repository."""
    from mkdocs.structure.files import File

    made = {"options.md": options_page(), "python/index.md": python_index()}
    made |= {f"python/{name}.md": python_page(name) for name in packages()}
    for path, content in made.items():
        stub = files.get_file_from_path(path)  # what the repository shows in its place
        if stub is not None:
            files.remove(stub)
        files.append(File.generated(config, path, content=content))
    for path in sorted(pictures()):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001
    """Turn links that leave ``docs`` into pictures of the site, or into links to the repository."""

    def moved(match: re.Match[str]) -> str:
        target = outside(page.file.src_uri, match[1])
        if target is None:
            return match[0]
        if target.suffix == ".png":
            return relpath(f"pictures/{target.name}", start=str(Path(page.file.src_uri).parent))
        return f"{config.extra['source']}/{target.as_posix()}{match[2] or ''}"

    return LINK.sub(moved, markdown)


def on_page_content(html: str, *, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001
    """Equations as MathML, which browsers draw themselves, and Sphinx roles of docstrings as plain code."""
    from latex2mathml.converter import convert

    def equation(match: re.Match[str]) -> str:
        return convert(entities.unescape(match[2]), display="block" if match[1] == "div" else "inline")

    return EQUATION.sub(equation, ROLE_HTML.sub(lambda m: f"<code>{m[1].rsplit('.', 1)[-1]}</code>", html))


def outside(page: str, link: str) -> Path | None:
    """Where a relative link of a page leads, relative to the repository; None where it stays in ``docs``.

    Args:
        page: the page, relative to ``docs``.
        link: as it stands in the page, without its anchor.
    """
    target = normpath(str(Path("docs", page).parent / link).replace("\\", "/"))
    return None if target.startswith("docs/") else Path(target)


def pictures() -> set[Path]:
    """The pictures outside ``docs`` that pages show, relative to the repository."""
    found = set()
    for path in DOCS.rglob("*.md"):
        page = path.relative_to(DOCS).as_posix()
        for match in LINK.finditer(path.read_text("utf-8")):
            target = outside(page, match[1])
            if target is not None and target.suffix == ".png":
                found.add(target)
    return found
