#!/usr/bin/env python3
"""The build graph keeps the layers of docs/architecture.md, and the check finds graphs that do not."""
import unittest

from tests.layering import layering
from tests.tidy import sources


def uses_of(build_files, source_files=()):
    uses = [u for path, text in build_files for u in layering.build_uses(path, text)]
    return uses + [u for path, text in source_files for u in layering.include_uses(path, text)]


def library(name, *deps):
    return f'cc_library(name = "{name}", deps = {list(deps)})\n'


class BrokenExamplesTest(unittest.TestCase):
    def broken(self, path, text, part):
        found = layering.direct_violations(uses_of([(path, text)]))
        self.assertEqual(len(found), 1, found)
        self.assertIn(part, found[0])

    def fine(self, path, text):
        self.assertEqual(layering.direct_violations(uses_of([(path, text)])), [])

    def test_a_layer_may_use_only_those_below_it(self):
        self.broken("schema/BUILD", library("a", "//actors:x"), "schema/ may not depend on actors/")
        self.broken("configs/BUILD", library("a", "//schema:x"), "configs/ may not depend on schema/")
        self.broken("runtime/eval/BUILD", library("a", "//configs:x"), "runtime/ may not depend on configs/")
        self.broken("actors/BUILD", library("a", "//integration/cli:x"), "actors/ may not depend on integration/")
        self.broken("integration/cli/BUILD", library("a", "//tests/testing:x"), "integration/ may not depend on tests/")
        self.fine("integration/cli/BUILD", library("a", "//actors:x", "//configs", "//runtime/eval:host", ":b"))
        self.fine("tests/actors/BUILD", library("a", "//integration/cli:x", "//actors:x"))

    def test_a_folder_of_the_core_may_use_only_lower_ones(self):
        self.broken("runtime/base/BUILD", library("a", "//runtime/model:x"), "not below")
        self.broken("runtime/engine/BUILD", library("a", "//runtime/sched:x"), "not below")
        self.broken("runtime/perf/BUILD", library("a", "//runtime/workload:x"), "not below")
        self.broken("runtime/novel/BUILD", library("a", "//runtime/base:x"), "has no rank")
        self.fine("runtime/eval/BUILD", library("a", "//runtime/sched:x", "//runtime/base:units"))
        self.fine("runtime/sched/policies/BUILD", library("a", "//runtime/sched:x"))

    def test_a_library_is_used_only_where_it_belongs(self):
        self.broken("runtime/perf/BUILD", library("a", "//third_party/sys:boost_json"), "runtime/ may not use")
        self.broken("configs/BUILD", library("a", "//third_party/sys:caf_core"), "configs/ may not use")
        self.broken("integration/cli/BUILD", library("a", "//third_party/sys:gtest"), "integration/ may not use")
        self.broken("configs/BUILD", 'cc_capnp_library(name = "a", srcs = ["a.capnp"])', "capnp")
        self.fine("schema/BUILD", 'cc_capnp_library(name = "a", srcs = ["a.capnp"])')
        self.fine("configs/BUILD", library("a", "//third_party/sys:yaml"))

    def test_dependencies_in_lists_sums_and_selects_are_seen(self):
        self.broken("runtime/base/BUILD", 'D = ["//actors:x"]\ncc_library(name = "a", deps = [":b"] + D)', "actors")
        self.broken("runtime/base/BUILD", 'cc_library(name = "a", deps = select({"c": ["//actors:x"]}))', "actors")
        self.fine("runtime/base/BUILD", 'cc_library(name = "a", srcs = ["a.cc"], visibility = ["//actors:__pkg__"])')

    def test_an_include_counts_like_a_dependency(self):
        for path, line, part in (("runtime/base/a.h", '#include "runtime/model/b.h"', "not below"),
                                 ("configs/a.cc", '#include <capnp/message.h>', "may not use"),
                                 ("actors/a.cc", '#include <boost/json.hpp>', "may not use"),
                                 ("runtime/sched/a.cc", '  # include "actors/b.h"', "may not depend on actors/")):
            found = layering.direct_violations(uses_of([], [(path, "\n" + line + "\n")]))
            self.assertEqual(len(found), 1, found)
            self.assertIn(part, found[0])
            self.assertIn(f"{path}:2", found[0])
        good = '#include <vector>\n#include "runtime/base/ids.h"\n// #include "actors/b.h"\n'
        self.assertEqual(layering.direct_violations(uses_of([], [("runtime/model/a.h", good)])), [])

    def test_a_library_reached_through_others_is_found_with_its_chain(self):
        uses = uses_of([("runtime/eval/BUILD", library("host", "//helper:a")),
                        ("helper/BUILD", library("a", ":b") + library("b", "//third_party/sys:yaml"))])
        self.assertEqual(layering.direct_violations(uses), [])
        self.assertEqual(layering.core_reaches(uses), ["//runtime/eval:host -> //helper:a -> //helper:b -> //third_party/sys:yaml"])

    def test_an_include_without_a_direct_dependency_is_found(self):
        build = {"runtime/base/BUILD": 'cc_library(name = "a", hdrs = ["a.h"])\n'
                                       'cc_library(name = "b", hdrs = glob(["b*.h"]), deps = [":a"])',
                 "tests/BUILD": 'cc_test(name = "t", srcs = ["t.cc"], deps = ["//runtime/base:b"])'}
        source = {"runtime/base/a.h": "", "runtime/base/b.h": '#include "runtime/base/a.h"\n',
                  "tests/t.cc": '#include <vector>\n#include "runtime/base/b.h"\n'}
        self.assertEqual(list(layering.undeclared_includes(build, source)), [])
        source["tests/t.cc"] += '#include "runtime/base/a.h"\n'
        found = list(layering.undeclared_includes(build, source))
        self.assertEqual(len(found), 1, found)
        self.assertIn("tests/t.cc includes runtime/base/a.h: add //runtime/base:a to deps", found[0])

    def test_a_header_generated_from_a_schema_belongs_to_its_library(self):
        build = {"schema/BUILD": 'cc_capnp_library(name = "w", srcs = ["w.capnp"])\ncc_library(name = "c", srcs = ["c.cc"], deps = [":w"])'}
        self.assertEqual(list(layering.undeclared_includes(build, {"schema/c.cc": '#include "schema/w.capnp.h"\n'})), [])


class SourceTreeTest(unittest.TestCase):
    def setUp(self):
        self.build_files = {p: sources.read(p) for p in sources.files("BUILD")}
        self.sources = {p: sources.read(p) for p in sources.files(".h", ".cc") if "/" in p}
        self.uses = uses_of(self.build_files.items(), self.sources.items())

    def test_the_graph_was_read(self):
        self.assertIn(("//runtime/base:prng", "//runtime/base:check"), {(u.user, u.used) for u in self.uses})
        self.assertIn(("//runtime/base:prng.cc", "//runtime/base:prng.h"), {(u.user, u.used) for u in self.uses})

    def test_no_use_breaks_the_layers(self):
        found = layering.direct_violations(self.uses)
        if found:
            self.fail("\n" + "\n".join(found))

    def test_the_core_reaches_no_framework(self):
        found = layering.core_reaches(self.uses)
        if found:
            self.fail("\n" + "\n".join(found))

    def test_every_include_has_a_direct_dependency(self):
        found = list(layering.undeclared_includes(self.build_files, self.sources))
        if found:
            self.fail("\n" + "\n".join(found))


if __name__ == "__main__":
    unittest.main()
