#!/usr/bin/env python3
"""Documents say what is there: links lead somewhere, and named files and folders of the source tree exist."""
import os
import re
import unittest

from tests.tidy import sources

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# `runtime/base`, `tests/tidy/allowed.txt`, `//runtime/base:prng`; not patterns and not names of our own making.
_PATH = re.compile(r"`(?://)?((?:runtime|schema|configs|actors|integration|tests|docs|tools|third_party)/[\w./-]+)(?::\w+)?`")


def anchors(text):
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(path, text, read=sources.read, exists=lambda p: (sources.ROOT / p).exists()):
    for target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):  # http:, mailto:
            continue
        name, _, anchor = target.partition("#")
        linked = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
        if not exists(linked):
            yield f"{path}: link to {target}: no such file"
        elif anchor and anchor not in anchors(text if linked == path else read(linked)):
            yield f"{path}: link to {target}: no such heading"


def missing_paths(path, text, exists=lambda p: (sources.ROOT / p).exists()):
    for named in _PATH.findall(text):
        if not exists(named.rstrip("/.")) and not any(exists(f"{named}{suffix}") for suffix in (".h", ".cc", ".py")):
            yield f"{path}: names `{named}`, which is not there"


class DocsTest(unittest.TestCase):
    def test_broken_links_are_found(self):
        found = list(broken_links("docs/a.md", "[x](b.md) [y](../README.md#start) [z](#here)\n# Here\n",
                                  read=lambda p: "## Start it\n", exists=lambda p: p in ("README.md", "docs/a.md")))
        self.assertEqual(found, ["docs/a.md: link to b.md: no such file", "docs/a.md: link to ../README.md#start: no such heading"])

    def test_good_links_pass(self):
        text = "[x](b.md#a-b) [y](https://example.org/x)\n"
        self.assertEqual(list(broken_links("docs/a.md", text, read=lambda p: "# A b\n", exists=lambda p: p == "docs/b.md")), [])

    def test_missing_paths_are_found_and_patterns_pass(self):
        text = "`runtime/base` `tests/nowhere` `//runtime/base:prng` `schema/*.capnp` `runtime/base/prng`"
        there = {"runtime/base", "runtime/base/prng.h"}
        self.assertEqual(list(missing_paths("a.md", text, exists=there.__contains__)), ["a.md: names `tests/nowhere`, which is not there"])

    def test_every_document_says_what_is_there(self):
        found = []
        for path in sources.files(".md"):
            text = sources.read(path)
            found += [*broken_links(path, text), *missing_paths(path, text)]
        if found:
            self.fail("\n" + "\n".join(found))


if __name__ == "__main__":
    unittest.main()
