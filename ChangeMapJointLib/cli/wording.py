"""Names of the library's arguments on the command line."""

from __future__ import annotations

from ChangeMapJointLib.core.errors import Argument, Wording

OPTIONS = {
    **{
        name: f"--{name}"
        for name in (
            *("reference", "template", "out", "method", "device", "threshold", "config", "overwrite"),
            *("refine", "pairs", "seed", "lesions", "shapes", "validation", "start", "cache", "runs"),
            "truth",
            *("scheduler", "workers", "memory", "retries", "check"),
            *("reader", "worklist", "arm", "study", "session", "log", "port", "host", "demo"),
            *(
                "dicom",
                "anonymous",
                "earlier",
                "to",
                "stow",
                "patient",
                "study",
                "aet",
                "listen",
                "pdf",
                "fhir",
                "text",
            ),
            *("field", "letter"),
        )
    },
    "from_pacs": "--from-pacs",
    "tls_ca": "--tls-ca",
    "tls_certificate": "--tls-certificate",
    "tls_key": "--tls-key",
    "current": "--reference",
    "deformation": "--field",
    "margin_mm": "--margin",
    "prior": "--template",
    "scans": "--scan",
    "sources": "--scan",
    "database": "--shapes",
    "config.method": "--method",
    "config.findings.threshold": "--threshold",
    "FindingOptions.threshold": "--threshold",
}


class CommandLine(Wording):
    """Names an argument by its option with its value, and a configuration's option as in the JSON file."""

    def subject(self, argument: Argument) -> str:
        """Return for example ``--device cuda``; for an option of the configuration ``lungs.spacing_mm``."""
        option = OPTIONS.get(argument.name, argument.name.removeprefix("config."))
        return option if argument.value in (None, True) else f"{option} {argument.value}"

    def mention(self, argument: Argument) -> str:
        """Return for example ``--device cpu``, or ``{"lungs": {"spacing_mm": ...}} in --config``."""
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
