import re
from pathlib import Path

from mmsr.data.audio import decoding
from mmsr.data.manifest.check.codes import CODES
from mmsr.data.manifest.check.report import code_table


def test_codes_are_kebab_case_and_in_the_table():
    lines = code_table().splitlines()
    assert len(lines) == len(CODES)
    for code, line in zip(CODES, lines, strict=True):
        assert (
            code == code.lower()
            and " " not in code
            and line.startswith(code)
            and CODES[code].severity in line
        )


def test_every_code_of_the_door_is_in_the_table():
    used = {
        code
        for path in Path(decoding.__file__).parent.glob("*.py")
        for code in re.findall(r'"(audio-[a-z-]+)"', path.read_text(encoding="utf-8"))
    }
    assert {"audio-corrupt", "audio-joined", "audio-gap"} <= used <= set(CODES)
