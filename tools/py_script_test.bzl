"""py_script_test: a test that is one executable Python file."""

# Bazel 4.2's own py_test starts `python`, which Debian 12 does not have; the file's shebang says python3.
def py_script_test(name, src, deps = [], **kw):
    native.sh_test(
        name = name,
        srcs = [src],
        data = deps,
        env = {"PYTHONPATH": ".", "PYTHONDONTWRITEBYTECODE": "1"},
        **kw
    )
