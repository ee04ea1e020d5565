"""Which files of the source tree the checks read: those on disk, found from this file's real path (Bazel's runfiles are
links into the source tree), so that a new file is checked without being listed anywhere."""
import os
from pathlib import Path

ROOT = Path(os.path.realpath(__file__)).parent.parent.parent
_SKIP = {".git", ".cache", "__pycache__"}


def files(*suffixes, under=""):
    """Paths relative to the root, sorted, of files whose name ends with one of the suffixes."""
    found = []
    for folder, folders, names in os.walk(ROOT / under):
        folders[:] = [f for f in folders if f not in _SKIP and not f.startswith("bazel-")]
        found += [os.path.relpath(os.path.join(folder, n), ROOT) for n in names if n.endswith(suffixes)]
    return sorted(found)


def read(path):
    return (ROOT / path).read_text(errors="replace")
