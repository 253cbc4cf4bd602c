"""A process that runs programs in forks of itself; `run_afresh` writes it lines of JSON.

Each is as fresh as a new one, but that torch is there: to import it takes seconds, and is not what is tested.
"""

import json
import os
import sys
import traceback

import torchvision.transforms  # noqa: F401


def run(code: str, arguments: list[str], folder: str, output: str, errors: str) -> None:
    """What `python -c` does in the folder, with what is printed in files."""
    status = 1
    try:
        for stream, path in ((1, output), (2, errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), stream)
        os.chdir(folder)
        sys.path.insert(0, "")
        sys.argv = ["-c", *arguments]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    ours = {name for name in sys.modules if name.partition(".")[0] in ("mmsr", "transformers")}
    assert not ours, f"torch brought {ours}"
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
