#!/usr/bin/env python3
"""`foretoken top`: in a terminal (a pty of our own) it shows a live system, follows its size, and ends on q; without one it prints plain lines;
what it shows is what /status.json says, and never longer than the screen."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unittest
import urllib.request

PROGRAM = os.path.abspath("integration/cli/foretoken")
LIMIT = 120  # seconds, for what should take moments


class Served:
    def __init__(self, *arguments):
        command = [PROGRAM, "serve", "--topology", "configs/topologies/small.yaml", "--load", "rate=20", "--dashboard", "127.0.0.1:0", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"dashboard at (http://\S+/)", line):
                self.url = found.group(1)
                return
        raise AssertionError("serve ended: " + str(self.process.wait()))

    def status(self):
        with urllib.request.urlopen(self.url + "status.json", timeout=60) as answer:
            return json.load(answer)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


class Screen:
    """A terminal of `rows` x `columns` in which top runs, as a person would see it: the characters where ncurses puts them."""

    def __init__(self, rows, columns, *arguments, **environment):
        self.main, far = pty.openpty()
        self.resize(rows, columns)
        env = dict(os.environ, TERM="xterm-256color", **environment)
        for name in ("LINES", "COLUMNS"):
            env.pop(name, None)
        self.process = subprocess.Popen([PROGRAM, "top", *arguments], stdin=far, stdout=far, stderr=subprocess.PIPE, env=env, start_new_session=True)
        os.close(far)
        self.pending = ""
        self.raw = ""

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.at = [0, 0]
        self.beyond = False
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if hasattr(self, "process"):
            os.kill(self.process.pid, signal.SIGWINCH)

    def put(self, character):
        row, column = self.at
        if row >= self.rows or column >= self.columns:
            self.beyond = True
        else:
            self.cells[row][column] = character
        self.at[1] += 1

    def obey(self, parameters, command):
        numbers = [int(n) if n.isdigit() else 0 for n in parameters.lstrip("?>").split(";")]
        first = numbers[0]
        if command in "Hf":
            self.at = [max(first, 1) - 1, max(numbers[1] if len(numbers) > 1 else 1, 1) - 1]
        elif command == "d":
            self.at[0] = max(first, 1) - 1
        elif command == "G":
            self.at[1] = max(first, 1) - 1
        elif command == "A":
            self.at[0] -= max(first, 1)
        elif command == "B":
            self.at[0] += max(first, 1)
        elif command == "C":
            self.at[1] += max(first, 1)
        elif command == "D":
            self.at[1] -= max(first, 1)
        elif command == "J":
            for row in range(self.at[0] if first == 0 else 0, self.rows):
                from_column = self.at[1] if first == 0 and row == self.at[0] else 0
                self.cells[row][from_column:] = [" "] * (self.columns - from_column)
        elif command == "K" and self.at[0] < self.rows:
            begin, end = (0, self.at[1] + 1) if first == 1 else (self.at[1], self.columns)
            self.cells[self.at[0]][begin:end] = [" "] * (end - begin)
        elif command == "X" and self.at[0] < self.rows:
            for column in range(self.at[1], min(self.at[1] + max(first, 1), self.columns)):
                self.cells[self.at[0]][column] = " "
        elif command == "b":  # the character before, again
            for _ in range(max(first, 1)):
                self.put(self.last)
        elif command == "L" and self.at[0] < self.rows:
            for _ in range(max(first, 1)):
                self.cells.insert(self.at[0], [" "] * self.columns)
                self.cells.pop()
        elif command == "M" and self.at[0] < self.rows:
            for _ in range(max(first, 1)):
                self.cells.pop(self.at[0])
                self.cells.append([" "] * self.columns)
        elif command == "P" and self.at[0] < self.rows:
            line = self.cells[self.at[0]]
            count = max(first, 1)
            line[self.at[1]:] = (line[self.at[1] + count:] + [" "] * count)[:self.columns - self.at[1]]
        elif command == "@" and self.at[0] < self.rows:
            line = self.cells[self.at[0]]
            line[self.at[1]:self.at[1]] = [" "] * max(first, 1)
            del line[self.columns:]

    def feed(self, text):
        self.raw += text
        self.pending += text
        while self.pending:
            if self.pending[0] == "\x1b":
                found = re.match(r"\x1b\[([?>0-9;]*)([@A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>78M]|\x1b\][^\x07]*\x07", self.pending)
                if not found:
                    if len(self.pending) > 40:
                        raise AssertionError("an escape that this test does not know: " + repr(self.pending[:40]))
                    return  # the rest is on its way
                self.pending = self.pending[found.end():]
                if found.group(2):
                    self.obey(found.group(1), found.group(2))
                continue
            character, self.pending = self.pending[0], self.pending[1:]
            if character == "\r":
                self.at[1] = 0
            elif character == "\n":
                self.at[0] += 1
            elif character == "\b":
                self.at[1] -= 1
            elif character >= " ":
                self.last = character
                self.put(character)

    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.cells)

    def read(self, seconds):
        """What comes within that time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not select.select([self.main], [], [], left)[0]:
                return
            try:
                self.feed(os.read(self.main, 1 << 16).decode(errors="replace"))
            except OSError:  # it has ended
                return

    def wait(self, pattern):
        until = time.monotonic() + LIMIT
        while not re.search(pattern, self.text()):
            if time.monotonic() > until:
                raise AssertionError(f"never on the screen: {pattern}\n{self.text()}")
            self.read(0.2)

    def press(self, key):
        os.write(self.main, key.encode())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        os.close(self.main)


class TopTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.served = Served()
        until = time.monotonic() + LIMIT
        while True:
            try:
                if cls.served.status()["totals"]["finished"] > 5:
                    return
            except OSError:  # nothing was observed yet
                pass
            assert time.monotonic() < until, "nothing finishes"
            time.sleep(0.2)

    @classmethod
    def tearDownClass(cls):
        cls.served.close()

    def screen(self, rows, columns, **environment):
        screen = Screen(rows, columns, self.served.url, "--interval", "0.3", **environment)
        self.addCleanup(screen.close)
        return screen

    def test_it_shows_the_system_and_ends_on_q(self):
        screen = self.screen(24, 110)
        screen.wait(r"h100-0 ")
        screen.wait(r"h100-1 ")
        shown = screen.text()
        for part in ("policy auto", "requests/s", "TTFT p50", "predicted against actual", "engine", "q ends"):
            self.assertIn(part, shown)
        first = re.search(r"up (\d+) s", shown).group(1)
        screen.wait(rf"up (?!{first} )\d+ s")  # it is live
        screen.press("q")
        self.assertEqual(screen.process.wait(LIMIT), 0)
        screen.read(1)
        self.assertIn("\x1b[?1049l", screen.raw, "the terminal is as it was before")
        self.assertEqual(screen.process.stderr.read(), b"")

    def test_it_follows_the_size_of_its_terminal(self):
        screen = self.screen(24, 110)
        screen.wait(r"q ends")
        screen.resize(12, 60)
        screen.wait(r"h100-1 ")
        screen.wait(r"q ends")
        self.assertFalse(screen.beyond, screen.text())
        self.assertIsNone(screen.process.poll())
        screen.resize(4, 20)  # too small for anything: it lives on
        screen.read(2)
        self.assertFalse(screen.beyond, screen.text())
        self.assertIsNone(screen.process.poll())
        screen.resize(40, 140)
        screen.wait(r"h100-1 ")
        screen.wait(r"TTFT p50")
        screen.press("q")
        self.assertEqual(screen.process.wait(LIMIT), 0)

    def test_ctrl_c_ends_it_and_mends_the_terminal(self):
        screen = self.screen(24, 110)
        screen.wait(r"h100-1 ")
        os.kill(screen.process.pid, signal.SIGINT)
        self.assertEqual(screen.process.wait(LIMIT), 0)
        screen.read(1)
        self.assertIn("\x1b[?1049l", screen.raw)

    def test_without_colours_nothing_is_told_by_colour(self):
        screen = self.screen(24, 110, NO_COLOR="1")
        screen.wait(r"h100-1 ")
        self.assertNotRegex(screen.raw, r"\x1b\[[0-9;]*(3[0-7]|38;)[0-9;]*m")
        screen.press("q")
        self.assertEqual(screen.process.wait(LIMIT), 0)

    def test_a_system_that_goes_away_is_told_and_not_the_end(self):
        served = Served()
        screen = Screen(24, 110, served.url, "--interval", "0.3")
        self.addCleanup(screen.close)
        screen.wait(r"h100-1 ")
        served.close()
        screen.wait(r"!! .*no dashboard answers")
        self.assertIsNone(screen.process.poll())
        screen.press("q")
        self.assertEqual(screen.process.wait(LIMIT), 0)


class PlainTest(unittest.TestCase):
    def test_without_a_terminal_it_prints_lines_that_are_those_of_status_json(self):
        served = Served()
        self.addCleanup(served.close)
        until = time.monotonic() + LIMIT
        while True:  # the same observation in both
            told = subprocess.run([PROGRAM, "top", served.url, "--once"], capture_output=True, text=True, timeout=60)
            status = served.status() if told.returncode == 0 else None
            if status and status["totals"]["finished"] > 0 and f"up {status['uptime']:.0f} s" in told.stdout:
                window = status["window"]
                wanted = [f"{window['arrivals_per_second']:.1f} requests/s", f"TTFT p50 {1e3 * window['ttft']['p50']:.0f} "]
                wanted += [f"{i['instance']:<20} {i['running']:5} {i['waiting']:5} " for i in status["instances"]]
                if all(w in told.stdout for w in wanted):
                    break
            self.assertLess(time.monotonic(), until, f"never alike: {told.stdout}{told.stderr}{status}")
        self.assertNotIn("\x1b", told.stdout)
        self.assertEqual(told.stderr, "")

    def test_it_goes_on_printing_until_told_to_end(self):
        served = Served()
        self.addCleanup(served.close)
        top = subprocess.Popen([PROGRAM, "top", served.url, "--interval", "0.2"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(top.stdout.close)
        titles = 0
        while titles < 3:
            line = top.stdout.readline()
            self.assertTrue(line, "it ended")
            self.assertLess(len(line), 400)
            titles += "policy" in line
        top.send_signal(signal.SIGTERM)
        top.stdout.read()
        self.assertEqual(top.wait(LIMIT), 0)

    def test_many_instances_fit_the_screen_those_in_trouble_first(self):
        served = Served("--set", "pools[0].instances[0].count=64", "--set", "scheduler.hosting=shard", "--fault-switch")
        self.addCleanup(served.close)
        screen = Screen(20, 100, served.url, "--interval", "0.3")
        self.addCleanup(screen.close)
        screen.wait(r"and \d+ more")
        self.assertFalse(screen.beyond, screen.text())
        order = json.dumps({"instance": "h100-63", "kill": 60}).encode()
        urllib.request.urlopen(urllib.request.Request(served.url + "faults", data=order, headers={"Content-Type": "application/json"}), timeout=60).close()
        screen.wait(r"!! h100-63 ")
        plain = subprocess.run([PROGRAM, "top", served.url, "--once"], capture_output=True, text=True, timeout=60)
        self.assertEqual(len(re.findall(r"h100-\d+ ", plain.stdout.partition("what happened")[0])), 64)
        screen.press("q")
        self.assertEqual(screen.process.wait(LIMIT), 0)

    def test_nobody_there_is_said_with_a_way_out(self):
        told = subprocess.run([PROGRAM, "top", "127.0.0.1:9", "--once"], capture_output=True, text=True, timeout=60)
        self.assertEqual(told.returncode, 1)
        self.assertIn("no dashboard answers at 127.0.0.1:9", told.stdout)
        wrong = subprocess.run([PROGRAM, "top", "nowhere:x", "--once"], capture_output=True, text=True, timeout=60)
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("must be the dashboard's URL, HOST:PORT or port", wrong.stdout)


if __name__ == "__main__":
    unittest.main()
