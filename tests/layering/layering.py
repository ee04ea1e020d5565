"""Reads BUILD files and #include lines as the graph of who uses whom, and says which uses break the layers of
docs/architecture.md. Knows packages and their dependencies, not what a symbol does.
"""
import ast
import fnmatch
import re
from typing import NamedTuple

# A layer may use those to the right of it, and itself.
_LAYERS = {
    "tests": {"integration", "actors", "schema", "configs", "runtime"},
    "integration": {"actors", "schema", "configs", "runtime"},
    "actors": {"schema", "configs", "runtime"},
    "schema": {"runtime"},
    "configs": {"runtime"},
    "runtime": set(),
}
# Inside runtime/, a folder may use those of a lower rank, and itself.
_RUNTIME_RANK = {
    "base": 0, "model": 1, "perf": 2, "workload": 2, "metrics": 2, "fault": 2, "engine": 3, "sync": 4, "predict": 5,
    "sched": 6, "cluster": 6, "observe": 7, "eval": 7,
}
# System libraries: which layers may use each; by target in third_party/sys and by the first part of an <include>.
_EDGE = {"integration", "tests"}
_LIBRARY_USERS = {
    "caf_core": {"actors"} | _EDGE, "caf_io": {"actors"} | _EDGE,
    "capnp": {"schema", "actors"} | _EDGE,
    "yaml": {"configs"} | _EDGE,
    "gtest": {"tests"}, "gtest_main": {"tests"}, "rapidcheck": {"tests"},
}
_INCLUDE_LIBRARY = {
    "caf": "caf_core", "capnp": "capnp", "kj": "capnp", "yaml-cpp": "yaml", "boost": "boost_json", "CLI": "cli11",
    "openssl": "crypto", "zlib.h": "zlib", "gtest": "gtest", "gmock": "gtest", "rapidcheck": "rapidcheck",
    "rapidcheck.h": "rapidcheck", "benchmark": "benchmark", "spdlog": "spdlog", "fmt": "spdlog", "prometheus": "prometheus_cpp", "ncurses.h": "ncurses",
}


class Use(NamedTuple):
    user: str  # label or file
    used: str  # label, or "<library>" of an include
    where: str  # file:line


def _package_of(label):
    return label[2:].split(":")[0]


def _absolute(label, package):
    if label.startswith(":"):
        return f"//{package}{label}"
    if label.startswith("//"):
        return label if ":" in label else f"{label}:{label.rsplit('/', 1)[1]}"
    return None  # a file


class Rule(NamedTuple):
    kind: str
    label: str
    where: str  # file:line
    attributes: dict  # attribute -> its strings


def rules(path, text):
    """The rules of a BUILD file. Bazel's language is Python's syntax; every string in an attribute counts, inside select(),
    glob() and list sums too. Names of lists at the top of the file are followed."""
    package = path.rsplit("/", 1)[0] if "/" in path else ""
    tree = ast.parse(text)
    named = {t.id: s.value for s in tree.body if isinstance(s, ast.Assign) for t in s.targets if isinstance(t, ast.Name)}

    def strings(node):
        for inner in ast.walk(node):
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                yield inner.value
            elif isinstance(inner, ast.Name) and inner.id in named:
                yield from strings(named[inner.id])

    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = {k.arg: k.value for k in call.keywords}
        name = given.get("name")
        if not isinstance(name, ast.Constant):
            continue
        yield Rule(getattr(call.func, "id", ""), f"//{package}:{name.value}", f"{path}:{call.lineno}",
                   {attribute: list(strings(value)) for attribute, value in given.items() if attribute})


def build_uses(path, text):
    """The dependencies that a BUILD file declares."""
    for rule in rules(path, text):
        if rule.kind == "cc_capnp_library":  # the macro adds it (tools/capnp.bzl)
            yield Use(rule.label, "//third_party/sys:capnp", rule.where)
        for attribute in ("deps", "implementation_deps", "runtime_deps"):
            for used in rule.attributes.get(attribute, ()):
                if label := _absolute(used, _package_of(rule.label)):
                    yield Use(rule.label, label, rule.where)


_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def include_uses(path, text):
    """The packages and libraries that a source's #include lines name."""
    user = f"//{path.rsplit('/', 1)[0]}:{path.rsplit('/', 1)[1]}"
    for match in _INCLUDE.finditer(text):
        where = f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
        own, system = match.groups()
        if own and "/" in own:
            yield Use(user, f"//{own.rsplit('/', 1)[0]}:{own.rsplit('/', 1)[1]}", where)
        elif system and (library := _INCLUDE_LIBRARY.get(system.split("/")[0])):
            yield Use(user, f"//third_party/sys:{library}", where)


def _broken_rule(user, used):
    """Why `user` may not use `used` (labels); None if it may."""
    a, b = _package_of(user).split("/"), _package_of(used).split("/")
    if a[0] not in _LAYERS:
        return None
    if b[0] == "third_party":
        allowed = _LIBRARY_USERS.get(used.split(":")[1], _EDGE)
        return None if a[0] in allowed else f"{a[0]}/ may not use {used} (only {', '.join(sorted(allowed))})"
    if b[0] not in _LAYERS:
        return None
    if a[0] != b[0]:
        return None if b[0] in _LAYERS[a[0]] else f"{a[0]}/ may not depend on {b[0]}/"
    if a[0] == "runtime" and a[1] != b[1]:
        for folder in (a[1], b[1]):
            if folder not in _RUNTIME_RANK:
                return f"runtime/{folder} has no rank: give it one in docs/architecture.md and tests/layering/layering.py"
        if _RUNTIME_RANK[a[1]] <= _RUNTIME_RANK[b[1]]:
            return f"runtime/{a[1]} may not depend on runtime/{b[1]}: it is not below"
    return None


def direct_violations(uses):
    """Uses that no layer allows, one line each."""
    return sorted({f"{u.where}: {u.user} -> {u.used}: {why}" for u in uses if (why := _broken_rule(u.user, u.used))})


def core_reaches(uses, libraries=("caf_core", "caf_io", "capnp", "yaml", "boost_json")):
    """Chains by which a //runtime target reaches a forbidden library, through whatever lies between."""
    graph = {}
    for use in uses:
        graph.setdefault(use.user, []).append(use.used)
    forbidden = {f"//third_party/sys:{library}" for library in libraries}
    found = []
    for start in sorted(label for label in graph if label.startswith("//runtime/")):
        chains, seen = [[start]], {start}
        while chains:
            chain = chains.pop()
            if chain[-1] in forbidden:
                found.append(" -> ".join(chain))
            for used in graph.get(chain[-1], ()):
                if used not in seen:
                    seen.add(used)
                    chains.append([*chain, used])
    return found


def _files(rule, attribute, known):
    """Paths that an attribute names; glob patterns are matched against the known source files."""
    package = _package_of(rule.label)
    for name in rule.attributes.get(attribute, ()):
        if name.startswith("//"):
            yield name[2:].replace(":", "/")
        elif "*" in name:
            yield from fnmatch.filter(known, f"{package}/{name}")
        else:
            yield f"{package}/{name.lstrip(':')}"


def undeclared_includes(build_files, sources):
    """Includes of our own headers that no direct dependency provides. (Bazel itself accepts any header that some
    dependency of a dependency brings.) Both arguments: path -> text."""
    everything = [rule for path, text in build_files.items() for rule in rules(path, text) if rule.kind.startswith("cc_")]
    provides = {}
    for rule in everything:
        headers = set(_files(rule, "hdrs", sources))
        if rule.kind == "cc_capnp_library":
            headers |= {f"{path}.h" for path in _files(rule, "srcs", sources)}
        provides[rule.label] = headers
    for rule in everything:
        own = set(_files(rule, "srcs", sources)) | provides[rule.label]
        labels = (_absolute(d, _package_of(rule.label)) for d in rule.attributes.get("deps", ()))
        direct = set().union(*(provides.get(label, ()) for label in labels))
        reachable = own | direct
        for path in sorted((own & sources.keys()) - direct):  # a header that a dependency provides too is its business
            for match in _INCLUDE.finditer(sources[path]):
                header = match.group(1)
                if header and "/" in header and header not in reachable:
                    owners = [label for label, headers in provides.items() if header in headers]
                    yield f"{rule.where}: {rule.label}: {path} includes {header}: add {owners[0] if owners else 'a target for it'} to deps"
