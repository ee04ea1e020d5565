#!/usr/bin/env python3
"""Every C++ source is formatted as .clang-format says. To mend: clang-format -i FILE."""
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.tidy import sources


def badly_formatted(paths, folder):
    """The paths that clang-format would change."""
    if not paths:
        return []
    run = subprocess.run(["clang-format", "--dry-run", "--ferror-limit=1", *paths], cwd=folder, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(run.stderr)
    return sorted({line.split(":")[0] for line in run.stderr.splitlines() if "clang-format-violations" in line})


class FormatTest(unittest.TestCase):
    def test_a_badly_formatted_file_is_found_and_a_good_one_passes(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / ".clang-format").write_text(sources.read(".clang-format"))
            (Path(folder) / "bad.cc").write_text("int  x ;\nint F( int a ){return a;}\n")
            (Path(folder) / "good.cc").write_text("int x;\nint F(int a) { return a; }\n")
            self.assertEqual(badly_formatted(["bad.cc", "good.cc"], folder), ["bad.cc"])

    def test_every_source_is_formatted(self):
        bad = badly_formatted(sources.files(".h", ".cc"), sources.ROOT)
        if bad:
            self.fail(f"not formatted; to mend: clang-format -i {' '.join(bad)}")


if __name__ == "__main__":
    unittest.main()
