#!/usr/bin/env python3
"""Every source keeps the style rules of tidy.py, and each rule finds what it is for and lets the good way pass."""
import unittest

from tests.tidy import sources, tidy

# Known exceptions, "path rule", each with its reason in a comment; a line that no longer applies fails the test.
ALLOWED = sources.ROOT / "tests/tidy/allowed.txt"


def rules(path, text, header_text=""):
    return [f.rule for f in tidy.check(path, text, header_text)]


class RulesTest(unittest.TestCase):
    def finds(self, rule, code, path="runtime/x/y.cc"):
        self.assertEqual(rules(path, code), [rule], code)

    def passes(self, code, path="runtime/x/y.cc", header=""):
        self.assertEqual(rules(path, code, header), [], code)

    def test_clocks_are_found_and_instants_pass(self):
        self.finds("clock", "auto t = std::chrono::steady_clock::now();")
        self.finds("clock", "auto t = std::chrono::system_clock::now();")
        self.finds("clock", "long t = time(nullptr);")
        self.finds("clock", "gettimeofday(&tv, 0);")
        self.passes("Instant t = now; Duration step_time(3); x.time(0); model.step_time (0);")

    def test_library_randomness_is_found_and_prng_passes(self):
        for code in ("std::rand();", "int x = rand();", "std::shuffle(a, b, g);", "std::uniform_int_distribution<int> d;",
                     "std::random_device r;", "std::mt19937_64 g;"):
            self.finds("randomness", code)
        self.passes("prng.Shuffle(v); Prng& rand; operand(); prng.Below(3); policy.distribution();")

    def test_threads_are_found(self):
        for code in ("std::thread t;", "std::mutex m;", "std::atomic<int> a;", "thread_local int x;"):
            self.finds("thread", code)

    def test_io_is_found_in_the_core_only_and_formatting_passes(self):
        for code in ('std::cout << 1;', 'printf("x");', 'std::fprintf(stderr, "x");', 'std::ifstream f("x");', 'getenv("X");'):
            self.finds("io", code)
            self.passes(code, path="integration/x/y.cc")
        self.passes('std::snprintf(b, n, "x"); log.printf_like();')
        self.passes('std::fprintf(stderr, "x");', path="runtime/base/check.cc")

    def test_foreign_includes_are_found_in_the_core_only(self):
        for header in ("caf/all.hpp", "capnp/message.h", "yaml-cpp/yaml.h", "boost/json.hpp", "thread", "iostream"):
            self.finds("include", f"#include <{header}>\n")
            self.passes(f"#include <{header}>\n", path="actors/x.cc")
        self.passes("#include <vector>\n#include <algorithm>\n")

    def test_comments_and_strings_do_not_count(self):
        self.passes('// std::rand() is banned\n/* std::mutex\n m; */ const char* s = "std::cout";\n'
                    'const char* r = R"(std::thread t;)"; int64_t n = 1\'000\'000; char c = \'"\';')

    def test_iteration_over_an_unordered_container_is_found(self):
        declared = "std::unordered_map<int, std::vector<int>> by_id;\n"
        self.finds("unordered", declared + "for (const auto& [k, v] : by_id) Use(k);")
        self.finds("unordered", declared + "std::copy(by_id.begin(), by_id.end(), out);")
        self.assertEqual(rules("runtime/x/y.cc", "for (auto& x : seen_) Use(x);", "std::unordered_set<int> seen_;"), ["unordered"])

    def test_order_free_iteration_and_other_uses_of_unordered_containers_pass(self):
        declared = "std::unordered_map<int, int> by_id; std::vector<int> ids;\n"
        self.passes(declared + "for (auto& x : by_id) sum += x.second;  // order-free: a sum of integers")
        self.passes(declared + "// order-free: a sum of integers\nfor (auto& x : by_id) sum += x.second;")
        self.passes(declared + "auto it = by_id.find(3); if (it != by_id.end()) Use(it); for (int i : ids) Use(by_id[i]);")
        self.passes(declared + "for (auto& x : by_id) Use(x);", path="tests/x.cc")

    def test_a_headers_shape_is_checked(self):
        good = "// What it is.\n#pragma once\n"
        self.passes(good, path="actors/x.h")
        self.finds("pragma", "// What it is.\n", path="actors/x.h")
        self.finds("top-comment", "#pragma once\n", path="actors/x.h")
        self.passes(good + "int x;\n" * (tidy.HEADER_LINES - 2), path="actors/x.h")
        self.finds("header-length", good + "int x;\n" * (tidy.HEADER_LINES - 1), path="actors/x.h")

    def test_a_functions_length_is_checked_wherever_it_stands(self):
        def body(lines):
            return "{\n" + "  Use();\n" * (lines - 2) + "}\n"
        for head in ("void F(int x) ", "int C::F() const ", "C::C(int a) : a_(a), b_(2) ", "TEST(A, B) ", "auto F() -> int "):
            self.passes(head + body(tidy.FUNCTION_LINES))
            self.finds("function-length", head + body(tidy.FUNCTION_LINES + 1))
        self.finds("function-length", "namespace a {\nclass B {\n void F() " + body(tidy.FUNCTION_LINES + 1) + "};\n}\n")
        self.passes("namespace a " + body(200) + "struct S " + body(200) + "enum class E " + body(200))
        self.passes("void F() " + body(50) + "void G() " + body(50))

    def test_a_loop_inside_a_function_does_not_hide_its_length(self):
        inner = "  for (int i = 0; i < 3; ++i) {\n    if (x) {\n" + "      Use();\n" * 70 + "    }\n  }\n"
        self.finds("function-length", "void F() {\n" + inner + "}\n")

    def test_left_overs_and_machine_paths_are_found_in_any_text(self):
        self.finds("left-over", "// TO" "DO: later", path="docs/x.md")
        self.finds("left-over", "int x;  // FIX" "ME", path="integration/x.cc")
        self.finds("machine-path", "see /wo" "rk/main/x", path="docs/x.md")
        self.passes("see ../shared/x and https://example.org/home/x and frame/work/x", path="docs/x.md")


class SourcesTest(unittest.TestCase):
    def test_every_source_keeps_the_rules(self):
        allowed = {tuple(line.split()[:2]) for line in ALLOWED.read_text().splitlines() if line and not line.startswith("#")}
        findings = []
        for path in sources.files(".h", ".cc", ".py", ".bzl", ".capnp", ".md", ".yaml", ".sh", ".js", ".html", "BUILD"):
            header = path[:-3] + ".h" if path.endswith(".cc") else ""
            header_text = sources.read(header) if header and (sources.ROOT / header).exists() else ""
            findings += tidy.check(path, sources.read(path), header_text)
        used = {(f.path, f.rule) for f in findings} & allowed
        left = [str(f) for f in findings if (f.path, f.rule) not in allowed]
        left += [f"{ALLOWED.name}: `{' '.join(entry)}` no longer applies: remove it" for entry in sorted(allowed - used)]
        if left:
            self.fail("\n" + "\n".join(left))


if __name__ == "__main__":
    unittest.main()
