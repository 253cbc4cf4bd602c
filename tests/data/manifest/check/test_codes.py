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
