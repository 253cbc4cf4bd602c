"""Issues of data, as messages that name file, row, column, value and what is accepted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

_SHOWN_ISSUES = 20


@dataclass(frozen=True)
class Issue:
    """A problem in a manifest.

    Attributes:
        file: Name of the manifest.
        row: Row number as seen in the file, None for the whole table.
        column: Name of the column, None for the whole row.
        problem: What is wrong, with the value, and what is accepted.
        code: The kind of issue, such as `label-unknown`.
        severity: A manifest with an error is refused, one with warnings is not.
    """

    file: str
    row: int | None
    column: str | None
    problem: str
    code: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        row = f", row {self.row}" if self.row is not None else ""
        column = f", column {self.column}" if self.column is not None else ""
        return f"{self.file}{row}{column}: {self.problem}"

    @property
    def place(self) -> str:
        """File and row."""
        return self.file if self.row is None else f"{self.file}, row {self.row}"


class ManifestError(ValueError):
    """A manifest that cannot be used; the message has a line for each of the first 20 issues, and a count.

    Attributes:
        issues: Every issue, by row.
        listed_by: Command that lists all of them; None if there is no manifest yet.
    """

    def __init__(self, issues: Sequence[Issue], *, listed_by: str | None = "mmsr data check MANIFEST"):
        self.issues = tuple(issues)
        self.listed_by = listed_by
        lines = [str(issue) for issue in self.issues[:_SHOWN_ISSUES]]
        if (more := len(self.issues) - _SHOWN_ISSUES) > 0:
            lines.append(f"{self.issues[0].file}: {more} more faults, {len(self.issues)} in all")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.issues,), {"listed_by": self.listed_by}


def unreadable(source: str, problem: str, *, code: str = "unreadable") -> ManifestError:
    """The error of a file that cannot be read."""
    return ManifestError([Issue(source, None, None, problem, code=code)])
