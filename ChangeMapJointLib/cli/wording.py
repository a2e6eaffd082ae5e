"""What the command line calls the arguments of the library."""

from __future__ import annotations

from ChangeMapJointLib.core.errors import Argument, Wording

OPTIONS = {
    **{
        name: f"--{name}"
        for name in (
            *("reference", "template", "out", "method", "device", "threshold", "preset", "config", "overwrite"),
            *("pairs", "seed", "lesions", "shapes", "validation", "start", "cache"),
        )
    },
    "current": "--reference",
    "prior": "--template",
    "scans": "--scan",
    "sources": "--scan",
    "database": "--shapes",
    "config.method": "--method",
    "config.preset": "--preset",
    "config.findings.threshold": "--threshold",
    "FindingOptions.threshold": "--threshold",
}


class CommandLine(Wording):
    """An argument is an option with its value; an option of the configuration is what stands in its JSON file."""

    def subject(self, argument: Argument) -> str:
        """``--device cuda``; of the configuration ``lungs.spacing_mm``."""
        option = OPTIONS.get(argument.name, argument.name.removeprefix("config."))
        return option if argument.value in (None, True) else f"{option} {argument.value}"

    def mention(self, argument: Argument) -> str:
        """``--device cpu``; of the configuration ``{"lungs": {"spacing_mm": ...}} in --config``."""
        first, _, path = argument.name.partition(".")
        if first != "config" or not path or argument.name in OPTIONS:
            return self.subject(argument)
        names = path.split(".")
        text = "..." if argument.value is None else str(argument.value)
        if len(names) == 1 and argument.value is None:  # a whole group of options
            text = "{...}"
        for name in reversed(names):
            text = f'{{"{name}": {text}}}'
        return f"{text} in --config"


COMMAND_LINE = CommandLine()
