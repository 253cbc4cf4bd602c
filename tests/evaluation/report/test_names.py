"""Numbers as text."""

from mmsr.evaluation.report.names import MISSING, brackets, number


def test_numbers_have_their_decimals_and_interval() -> None:
    assert number(0.12345) == "0.123" and number(None) == number(None, (0, 1)) == MISSING
    assert number(-0.5, (-1, 0.25), signed=True) == "-0.500 [-1.000, +0.250]"
    assert number(2.345, (1, 3), digits=1) == "2.3 [1.0, 3.0]"
    assert brackets(None) == MISSING and brackets((0, 0.5), digits=2) == "[0.00, 0.50]"
