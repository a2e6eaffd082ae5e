"""Whether a scan has a contrast agent, and which, by the free text of its header; nothing else of that is told."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ChangeMapJointLib.io.dicom.values import LONGEST_LO, without_identity

# names and brands of agents for CT; of others it is only told that there is one
AGENTS = (
    *("iohexol", "iopamidol", "iodixanol", "iopromide", "ioversol", "iomeprol", "iobitridol", "ioxaglate", "iopromid"),
    *("omnipaque", "accupaque", "isovue", "solutrast", "iopamiro", "visipaque", "ultravist", "optiray", "imeron"),
    *("iomeron", "xenetix", "hexabrix", "oxilan", "iodine", "iod", "jod", "barium", "gastrografin", "telebrix", "omni"),
)
UNNAMED_AGENT, UNCLEAR = "with contrast agent", ""
_NO = re.compile(  # in the languages of scanners and of those who type
    r"(non?e?|not|nil|never|without|native?[rs]?|nativo|natif|plain|nonenhanced|unenhanced|noncontrast|ncct|nein"
    r"|ohne|kein\w*|nicht|sans|sin|senza|sem|aucun|aucune|pas|nessun\w*|zonder|geen|uden|utan|uten|bez"
    r"|kontrastlos|kontrastfrei"
    r"|false|off|refused|declined|verweigert|abgelehnt|contraindicated|kontraindiziert)"
)
_YES = re.compile(
    r"(contrast\w*|kontrast\w*|contraste|km|mdc|iodinated|iv|intraven\w*|oral\w*|per ?oral|po|rectal\w*|rektal\w*"
    r"|enhanced|cect|with|mit|avec|con|yes|ja|oui|si|applied|nonionic)"
)
_GIVEN = re.compile(
    r"(given|applied|administered|used|gegeben|verwendet|verabreicht|agent|media|medium|mittel|due|wegen)"
)
_SPELLINGS = (  # what the words below would misread
    (r"\bw ?[/\\]? ?o(ut)?\b", " without "),
    (r"\bw ?/", " with "),
    (r"\bs ?/|\bo\. ?(?=k)|\bo(?=km\b)", " without "),  # sin, sem, ohne
    (r"\b(pre|before|vor|avant)[- ]?(contrast\w*|kontrast\w*|km|iv)\b", " noncontrast "),
    (r"\b(contrast\w*|km|iv|i\.v\.|c) ?\(?-\)?(?= *$)", " noncontrast "),
    (r"\bi\. ?v\b\.?", " iv "),
    (r"\bp\. ?o\b\.?", " po "),
    (r"\b(non|nicht|no)[- ]?ion\w+", " nonionic "),
    (r"\bnon[- ]?(contrast\w*|enhanced)", " noncontrast "),
    (r"\b(no|nr)\.? ?[1-9]\d*", " "),  # number 5
    # an allergy to an agent is none that was given
    (r"\b(?!nativ|plain|without|ohne)[^\W\d]*[- ]?all?erg\w*( (to|auf|gegen|a|au) \w+)?", " "),
)
_CLAUSES = re.compile(r"(?<!\d)[.,]|[.,](?!\d)|[;+&/\n\\]|\b(?:and|und|et|but|aber|then|dann)\b")
_AMOUNT = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:mls?|cc|cm3)\b")


def contrast_agent(text: str, identity: Iterable[str] = ()) -> str | None:
    """Return the contrast agent of a header.

    The field is free text, in which anything may stand. Words that deny an agent come first; a text that both denies
    and names one, such as "native and 80 ml Imeron", is unclear.

    Args:
        text: ContrastBolusAgent.
        identity: number and name of the patient; an agent of that name is not told.

    Returns:
        A known agent, or that there was one; None if the text is empty or says that there was none; an empty
        string if it is unclear. Nothing else of the text is told.

    Examples:
        >>> contrast_agent("80 ml OMNIPAQUE 350, Mrs Muster"), contrast_agent("oral + i.v."), contrast_agent("nativ")
        ('Omnipaque', 'with contrast agent', None)
        >>> contrast_agent("Mrs Muster")
        ''
    """
    if text.strip(" -.").lower() in ("", "n"):
        return None
    if len(text) > LONGEST_LO:  # a damaged length: other elements follow
        return UNCLEAR
    plain = text.lower()
    for spelling, word in _SPELLINGS:
        plain = re.sub(spelling, word, plain)
    said = [_said(clause) for clause in _CLAUSES.split(plain)]
    told, denied = [one for one in said if one], None in said
    if "?" in text:
        return UNCLEAR
    if denied:
        return UNCLEAR if told else None
    named = next((one for one in told if one != UNNAMED_AGENT), told[0] if told else UNCLEAR)
    return without_identity(named, identity)


def _said(clause: str) -> str | None:
    """What a part of the text says, as :func:`contrast_agent` returns it."""
    if clause.strip() == "y":
        return UNNAMED_AGENT
    amounts = [float(amount.replace(",", ".")) for amount in _AMOUNT.findall(clause)]
    if amounts and not any(amounts):
        return None
    words = re.findall(r"[^\W\d_]+", clause)
    agents = [word in AGENTS for word in words]
    clear = [bool(_YES.fullmatch(word)) for word in words]
    no = next((n for n, word in enumerate(words) if _NO.fullmatch(word)), None)
    if no is not None:
        about = all(
            a or c or _GIVEN.fullmatch(w) for w, a, c in zip(words, agents, clear, strict=True) if w != words[no]
        )
        other = not about and any((*agents[:no], *clear[:no]))  # "Imeron without complications"
        return UNCLEAR if any(amounts) or other else None
    if any(agents):
        return str(words[agents.index(True)]).capitalize()
    if any(amounts) or any(clear):
        return UNNAMED_AGENT
    numbers = re.findall(r"\d+(?:[.,]\d+)?", clause)
    return None if numbers and not words and not any(float(n.replace(",", ".")) for n in numbers) else UNCLEAR
