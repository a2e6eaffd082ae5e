"""What the free text of ContrastBolusAgent is taken for."""

from __future__ import annotations

import pytest

from ChangeMapJointLib.io.dicom.contrast import UNCLEAR, UNNAMED_AGENT, contrast_agent

SAID = {
    None: (
        *(
            "",
            " ",
            "N",
            "NO",
            "none",
            "NO CONTRAST",
            "ohne KM",
            "nativ",
            "Nativ-CT",
            "without contrast",
            "non contrast",
        ),
        *("NON-CONTRAST", "w/o", "W/O CONTRAST", "kein", "keine KM-Gabe", "KM: nein", "sans", "sin contraste", "0 ml"),
        *("senza mdc", "plain CT", "unenhanced", "NO IV", "no iodine contrast", "Jod-Allergie, nativ"),
        *("no i.v. contrast due to iodine allergy", "contrast not given", "0", "Omnipaque 0 ml"),
        *(
            "o.KM",
            "o. KM",
            "oKM",
            "wo contrast",
            "w\\o iv",
            "s/ contraste",
            "s/c",
            "pre-contrast",
            "vor KM",
            "KM -",
            "IV (-)",
        ),
        *("KM verweigert", "contrast: off", "nativ Allergie"),
    ),
    UNNAMED_AGENT: (
        *("oral + i.v.", "w/ contrast", "IV CONTRAST", "mit KM", "KM", "100 ml", "1,5 ml", "Yes", "Y", "APPLIED"),
        *("non-ionic", "NON IONIC CONTRAST 100 ml", "Muster, 80cc", "100 mls"),
    ),
    "Omnipaque": ("80 ml OMNIPAQUE 350, Mrs Muster", "Omnipaque300", "iv contrast Omnipaque", "Omnipaque Lot No 123"),
    UNCLEAR: (
        *("Muster Erika", "n/a", "unk", "lot no 5", "Jod-Allergie", "with and without contrast", "nativ und KM"),
        *("nativ + 80 ml Imeron", "native and 80 ml Imeron", "oral, no IV", "Omnipaque without complications"),
        *("contrast?", "Omnipaque " + "x" * 60),
    ),
}


@pytest.mark.parametrize("told", SAID, ids=repr)
def test_words_that_deny_come_first_and_unknown_ones_say_nothing(told):
    assert {text: contrast_agent(text) for text in SAID[told]} == dict.fromkeys(SAID[told], told)


def test_an_agent_that_the_patient_is_called_is_not_told():
    assert contrast_agent("Barium", ["PID-1", "Barium^Anna"]) == UNCLEAR
    assert contrast_agent("nativ", ["PID-1", "Nativ^Anna"]) is None
