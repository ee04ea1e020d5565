#!/usr/bin/env python3
"""The program's usage: version, help and wrong command lines, for every command that it lists."""
import re
import subprocess
import unittest

PROGRAM = "integration/cli/foretoken"


def run(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60)


def commands_of(*path):
    """Names and descriptions that --help lists below `path`."""
    listed = run(*path, "--help").stdout.partition("Subcommands:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  (\S+)(?: +(.*))?$", listed, re.MULTILINE)


def leaves(*path):
    below = commands_of(*path)
    if not below:
        return [path] if path else []
    return [leaf for name, _ in below for leaf in leaves(*path, name)]


class UsageTest(unittest.TestCase):
    def test_version_is_one_line_on_stdout(self):
        version = run("--version")
        self.assertEqual((version.returncode, version.stderr), (0, ""))
        self.assertRegex(version.stdout, r"\Aforetoken \d+\.\d+\.\d+\n\Z")

    def test_help_describes_every_command(self):
        self.assertEqual(run("--help").returncode, 0)
        for name, description in commands_of():
            self.assertGreater(len(description), 10, name)

    def test_the_readme_lists_exactly_these_commands(self):
        with open("README.md") as readme:
            section = readme.read().partition("\n## Commands\n")[2].partition("\n## ")[0]
        listed = re.findall(r"^\| `(\w+)", section, re.MULTILINE)
        self.assertEqual(sorted(listed), sorted(["test", *(name for name, _ in commands_of())]))  # `test` is the script's own

    def test_every_command_has_help_with_an_example(self):
        for command in leaves():
            with self.subTest(command=" ".join(command)):
                shown = run(*command, "--help")
                self.assertEqual((shown.returncode, shown.stderr), (0, ""))
                self.assertIn("foretoken " + " ".join(command), shown.stdout.partition("xample")[2])

    def test_an_unknown_command_names_the_nearest(self):
        for name, _ in commands_of():
            wrong = run(name + "x")
            self.assertEqual((wrong.returncode, wrong.stdout), (2, ""))
            self.assertIn(f'unknown command "{name}x": did you mean "{name}"?', wrong.stderr)

    def test_an_unknown_option_is_one_message_with_the_nearest(self):
        wrong = run("--versoin")
        self.assertEqual((wrong.returncode, wrong.stdout), (2, ""))
        self.assertIn('unknown option "--versoin": did you mean "--version"?', wrong.stderr)
        for command in leaves():
            with self.subTest(command=" ".join(command)):
                wrong = run(*command, "--no-such-option")
                self.assertEqual((wrong.returncode, wrong.stdout, wrong.stderr.count("\n")), (2, "", 1), wrong.stderr)

    def test_no_command_prints_the_help_as_an_error(self):
        nothing = run()
        self.assertEqual((nothing.returncode, nothing.stdout), (2, ""))
        self.assertIn("foretoken [OPTIONS]", nothing.stderr)


if __name__ == "__main__":
    unittest.main()
