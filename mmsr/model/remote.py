"""A checkpoint's own file `mmsr_auto.py`, by which transformers finds mmsr where nobody has imported it.

    from_pretrained(FOLDER, trust_remote_code=True) ─► auto_map ─► mmsr_auto.py ─► from mmsr import ...

The file holds that import alone. transformers runs it only if its caller trusts it, tells to install mmsr
where that is missing, and after `import mmsr` needs neither: mmsr itself runs nothing from a folder.

There is no `custom_pipelines` in the configuration: once that is loaded, mmsr is imported and its task
registered, while `pipeline` would go on to ask for trust.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

FILE = "mmsr_auto.py"
_SOURCE = '''"""Finds the package mmsr for `trust_remote_code=True`: pip install mmsr."""

from mmsr import MmsrConfig, MmsrForSentimentReasoning, MmsrProcessor  # noqa: F401
'''
_MODULE = Path(FILE).stem
AUTO_MAP = {
    "AutoConfig": f"{_MODULE}.MmsrConfig",
    "AutoModel": f"{_MODULE}.MmsrForSentimentReasoning",
    "AutoProcessor": f"{_MODULE}.MmsrProcessor",
}


def write_auto_file(folder: str | os.PathLike[str]) -> None:
    """Write the file into the folder of a checkpoint, which is made if need be."""
    os.makedirs(folder, exist_ok=True)
    (Path(folder) / FILE).write_text(_SOURCE, encoding="utf-8")


class FoundByAutoFile:
    """A class of a checkpoint whose code stays in the package.

    transformers would copy the module of a class that it has found by `auto_map` into folders saved later.
    """

    @classmethod
    def register_for_auto_class(cls, *_: Any, **__: Any) -> None:
        """Do nothing: `auto_map` names the file that is written with every checkpoint."""
