"""The style rules that a program can check (CONTRIBUTING.md explains them). Each rule takes a file's path and text and
yields findings; sources.py says which files there are. Knows C++ by regular expressions only: a rule errs on the side of
silence where telling needs a compiler.
"""
import re
from typing import NamedTuple

HEADER_LINES = 300
FUNCTION_LINES = 70


class Finding(NamedTuple):
    path: str
    line: int
    rule: str
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.message}"


_NOT_CODE = re.compile(
    r'R"(?P<tag>\w*)\((?:.|\n)*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Za-z_])\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*(?:.|\n)*?\*/')


def code_only(text):
    """The text with comments and the insides of literals blanked; line and column of the rest stay."""
    return _NOT_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def _line(text, position):
    return text.count("\n", 0, position) + 1


# What the pure core may not use (docs/architecture.md): pattern, and what to do instead. Matched in code_only().
_BANNED_CODE = [
    (r"\b(?:system|steady|high_resolution|utc|file)_clock\b|\bgettimeofday\b|\bclock_gettime\b|\bstd::clock\b|"
     r"\bstd::time\b|(?<![\w.>:])::?time\s*\(|(?<![\w.>:])time\s*\(\s*(?:nullptr|NULL|0|&)",
     "clock", "time comes in as `Instant now`"),
    (r"\bstd::s?rand\b|(?<![\w.>:])s?rand\s*\(|\bstd::(?:random_)?shuffle\b|\bstd::sample\b|\bstd::\w+_distribution\b|"
     r"\bstd::random_device\b|\bstd::(?:mt19937\w*|minstd_rand0?|default_random_engine)\b",
     "randomness", "randomness comes in as `Prng&` (runtime/base/prng.h), whose bytes do not depend on the library"),
    (r"\bstd::(?:jthread|thread|this_thread|(?:\w+_)?mutex|condition_variable\w*|atomic\w*|future|async|promise|lock_guard|"
     r"scoped_lock|unique_lock|call_once)\b|\bthread_local\b|\bpthread_\w+",
     "thread", "the core is single-threaded; actors own concurrency"),
    (r"\bstd::(?:cout|cerr|clog|cin|[io]?fstream|filesystem|getenv|system)\b|(?<![\w.>])(?:f|v|vf)?printf\s*\(|"
     r"(?<![\w.>])(?:fputs|puts|fopen|fwrite|getenv)\s*\(",
     "io", "the core does no I/O: return a value or an effect"),
]
_BANNED_INCLUDE = re.compile(r"#include\s*<(caf/|capnp/|kj/|yaml-cpp/|boost/|CLI/|spdlog/|fmt/|openssl/|zlib|thread>|mutex>|"
                             r"atomic>|future>|condition_variable>|chrono>|random>|iostream>|fstream>|filesystem>|ctime>)")
# CheckFailed prints its condition and aborts: the one place that may.
_MAY_PRINT = {"runtime/base/check.cc"}


def banned_in_core(path, text):
    if not path.startswith("runtime/"):
        return
    code = code_only(text)
    for pattern, rule, instead in _BANNED_CODE:
        if rule == "io" and path in _MAY_PRINT:
            continue
        for match in re.finditer(pattern, code):
            yield Finding(path, _line(text, match.start()), rule, f"`{match.group().strip()}` in runtime/: {instead}")
    for match in _BANNED_INCLUDE.finditer(text):
        yield Finding(path, _line(text, match.start()), "include", f"`{match.group()}` in runtime/: the core uses plain C++20 only")


_UNORDERED = re.compile(r"\bstd::unordered_(?:multi)?(?:map|set)\s*<")


def _unordered_names(code):
    """Names of variables of an unordered container type."""
    for match in _UNORDERED.finditer(code):
        depth, i = 1, match.end()
        while i < len(code) and depth:
            depth += {"<": 1, ">": -1}.get(code[i], 0)
            i += 1
        declared = re.match(r"\s*&?\s*(\w+)\s*[;={(),]", code[i:])
        if declared:
            yield declared.group(1)


def unordered_iteration(path, text, header_text=""):
    """Iteration over an unordered container gives an order that differs between libraries: it must not reach output.
    `// order-free: why` on the line (or the one above) says why it does not."""
    if not path.startswith("runtime/"):
        return
    code = code_only(text)
    lines = text.split("\n")
    for name in sorted(set(_unordered_names(code)) | set(_unordered_names(code_only(header_text)))):
        for match in re.finditer(rf"\bfor\s*\([^;{{}}]*:\s*\*?(?:\w+(?:\.|->))*{name}\s*\)|\b{name}\s*(?:\.|->)\s*c?begin\s*\(", code):
            line = _line(text, match.start())
            if not any("// order-free: " in near for near in lines[max(line - 2, 0):line]):
                yield Finding(path, line, "unordered",
                              f"iterates over the unordered `{name}`: sort first, or say `// order-free: why`")


def header_shape(path, text):
    if not path.endswith(".h"):
        return
    lines = text.rstrip("\n").split("\n")
    if "#pragma once" not in lines:
        yield Finding(path, 1, "pragma", "a header needs `#pragma once`")
    if not lines[0].startswith("// "):
        yield Finding(path, 1, "top-comment", "a header begins with a comment: what it is, guarantees, does not do")
    if len(lines) > HEADER_LINES:
        yield Finding(path, len(lines), "header-length", f"{len(lines)} lines, at most {HEADER_LINES}: is it one concept?")


_CONTROL = re.compile(r"^\s*(?:\}\s*)?(?:else\b|if\b|for\b|while\b|switch\b|catch\b|do\b|try\b)")
_FUNCTION = re.compile(r"\)\s*(?:(?:const|noexcept|override|final|mutable|&&?)\s*)*(?:->[^;{}]*|:[^;{}]*)?$")


def functions(code):
    """(first line, last line) of each outermost function body in comment-free code."""
    stack, start, function = [], 0, None
    for i, char in enumerate(code):
        if char == "{":
            head = code[start:i]
            if function is None and _FUNCTION.search(head.rstrip()) and not _CONTROL.match(head):
                first = start + len(head) - len(head.lstrip())
                function = (len(stack), _line(code, first))
            stack.append(char)
            start = i + 1
        elif char == "}":
            if stack:
                stack.pop()
            if function is not None and len(stack) == function[0]:
                yield function[1], _line(code, i)
                function = None
            start = i + 1
        elif char == ";":
            start = i + 1


def function_length(path, text):
    if not path.endswith((".h", ".cc")):
        return
    for first, last in functions(code_only(text)):
        if last - first + 1 > FUNCTION_LINES:
            yield Finding(path, first, "function-length", f"{last - first + 1} lines, at most {FUNCTION_LINES}: name its parts")


_LEFT_OVER = re.compile("TO" r"DO|FIX" r"ME|XX" r"X\b|HA" r"CK\b")  # split: this file is checked too
_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:wo" r"rk|ro" r"ot|ho" r"me)/")


def left_over(path, text):
    for number, line in enumerate(text.split("\n"), 1):
        if match := _LEFT_OVER.search(line):
            yield Finding(path, number, "left-over", f"`{match.group()}`: finish it, or open an issue and say nothing here")
        if match := _MACHINE_PATH.search(line):
            yield Finding(path, number, "machine-path", f"`{match.group()}`: a path of one machine; use one relative to the root")


def check(path, text, header_text=""):
    """All findings in one file; header_text: of the header beside a .cc."""
    findings = [*left_over(path, text)]
    if path.endswith((".h", ".cc")):
        findings += [*banned_in_core(path, text), *unordered_iteration(path, text, header_text), *header_shape(path, text),
                     *function_length(path, text)]
    return findings
