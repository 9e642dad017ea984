"""tools/setup, tools/run and tools/test with stand-ins for the programs they call."""
import os
import re
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
PACKAGES = re.search(r"packages=\((.*?)\)", (TOOLS / "setup").read_text(encoding="utf-8"),
                     re.S)[1].split()


class Machine:
    """A folder of stand-ins that precedes PATH, and what they were called with."""

    def __init__(self, folder, installed, user=0, sudo=True):
        self.bin = Path(folder)
        self.log = self.bin / "calls"
        self.log.touch()
        lines = "\n".join(f"echo 'installed {package}'" for package in installed)
        self.program("dpkg-query", lines + "\nexit 1")
        self.program("id", f"echo {user}")
        self.program("apt-get", 'echo "apt-get $*" >>"$CALLS"')
        self.program("apt-cache", '[ "$2" != "$UNKNOWN" ]')
        # No program but these and what the scripts themselves use.
        for name in ["bash", "cat", "dirname", "env", "grep", "head", "mktemp", "nproc", "rm",
                     "sed", "sort", "tail"]:
            (self.bin / name).symlink_to(self.find(name))
        if sudo:
            self.program("sudo", 'echo "sudo $*" >>"$CALLS"; [ "$1" = -v ] || exec "$@"')

    @staticmethod
    def find(name):
        return next(Path(d, name) for d in os.environ["PATH"].split(":") if Path(d, name).is_file())

    def program(self, name, text):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, *command, **environment):
        return subprocess.run(command, capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL,
                              env={"PATH": str(self.bin), "CALLS": str(self.log), **environment})

    def calls(self):
        return self.log.read_text(encoding="utf-8").splitlines()


class Case(unittest.TestCase):
    def machine(self, *args, **kwargs):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Machine(folder.name, *args, **kwargs)


class Help(unittest.TestCase):
    def test_every_script_has_one_usage(self):
        scripts = [path for path in sorted(TOOLS.iterdir()) if path.is_file() and os.access(path, os.X_OK)]
        self.assertGreater(len(scripts), 10)
        for script in scripts:
            with self.subTest(script=script.name):
                command = [sys.executable, "-B", script] if b"python3" in script.read_bytes()[:40] else [script]
                shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False,
                                       stdin=subprocess.DEVNULL)
                self.assertEqual((shown.returncode, shown.stderr), (0, ""))
                self.assertEqual(shown.stdout.count("usage: "), 1, shown.stdout)
                self.assertRegex(shown.stdout.partition("usage: ")[2], rf"^(tools/)?{script.name}\b")
                self.assertRegex(shown.stdout, r"[Ee]xit status|[Ee]nds with")
                wrong = subprocess.run([*command, "--no-such-option"], capture_output=True, text=True,
                                       check=False, stdin=subprocess.DEVNULL)
                self.assertEqual(wrong.returncode, 2, wrong.stdout + wrong.stderr)
                self.assertIn(script.name, wrong.stderr)


class Setup(Case):
    def test_nothing_to_do(self):
        machine = self.machine(PACKAGES, user=1000, sudo=False)
        done = machine.run(TOOLS / "setup")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual(machine.calls(), [])

    def test_root_installs_only_what_is_missing(self):
        machine = self.machine(PACKAGES[2:], user=0, sudo=False)
        done = machine.run(TOOLS / "setup")
        self.assertEqual(done.returncode, 0, done.stderr)
        update, install = machine.calls()
        self.assertTrue(update.endswith(" update"), update)
        self.assertTrue(install.endswith(" ".join(["--no-install-recommends", *PACKAGES[:2]])), install)

    def test_others_use_sudo(self):
        machine = self.machine([], user=1000)
        done = machine.run(TOOLS / "setup")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(machine.calls()[0], "sudo -v")
        self.assertTrue(machine.calls()[-1].endswith(" ".join(PACKAGES)))

    def test_without_sudo_the_command_is_named(self):
        machine = self.machine(PACKAGES[1:], user=1000, sudo=False)
        done = machine.run(TOOLS / "setup")
        self.assertEqual(done.returncode, 3)
        self.assertIn("apt-get update && apt-get install --yes --no-install-recommends "
                      + PACKAGES[0] + "\n", done.stderr)
        self.assertEqual(machine.calls(), [])

    def test_check_changes_nothing(self):
        machine = self.machine(PACKAGES[1:])
        done = machine.run(TOOLS / "setup", "--check")
        self.assertEqual(done.returncode, 3)
        self.assertIn(f"missing: {PACKAGES[0]}.", done.stderr)
        self.assertEqual(machine.calls(), [])

    def test_a_package_apt_does_not_know(self):
        machine = self.machine([])
        done = machine.run(TOOLS / "setup", UNKNOWN="libhwy-dev")
        self.assertEqual(done.returncode, 3)
        self.assertIn("no package libhwy-dev", done.stderr)
        self.assertIn("universe", done.stderr)

    def test_apt_fails(self):
        machine = self.machine([])
        machine.program("apt-get", "echo 'E: no network'; exit 100")
        done = machine.run(TOOLS / "setup")
        self.assertEqual(done.returncode, 3)
        self.assertIn("E: no network", done.stderr)


class Usage(Case):
    def test_help(self):
        for script in ["setup", "run", "test"]:
            done = self.machine(PACKAGES).run(TOOLS / script, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(done.stdout.startswith(f"usage: tools/{script}"))

    def test_wrong_arguments(self):
        for command in [["setup", "--all"], ["run"], ["run", "--fast"], ["test", "fast"]]:
            done = self.machine(PACKAGES).run(TOOLS / command[0], *command[1:])
            self.assertEqual(done.returncode, 2)
            self.assertIn("usage: tools/", done.stderr)


class Preset(Case):
    CHOOSE = f'set -euo pipefail; source {TOOLS}/lib.sh; choose_preset; echo "$preset ${{CUDACXX-}}"'

    def choose(self, release, **environment):
        machine = self.machine(PACKAGES)
        if release:
            machine.program("nvcc", f"echo 'Cuda compilation tools, release {release}, V{release}.1'")
        done = machine.run("bash", "-c", self.CHOOSE, **environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        preset, _, compiler = done.stdout.strip().partition(" ")
        return preset, compiler, done.stderr, machine

    def test_new_enough(self):
        for release in ["12.4", "12.10", "13.0"]:
            preset, compiler, _, machine = self.choose(release)
            self.assertEqual((preset, compiler), ("cuda", str(machine.bin / "nvcc")))

    def test_cpu_on_demand(self):
        preset, _, message, _ = self.choose("13.0", SPDNN_PRESET="cpu")
        self.assertEqual(preset, "cpu")
        self.assertIn("For the CUDA backend: unset it", message)

    @unittest.skipIf(Path("/usr/local/cuda/bin/nvcc").exists(), "/usr/local/cuda is used here")
    def test_none_or_too_old(self):
        for release in [None, "11.8", "12.3", "9.2"]:
            preset, compiler, message, _ = self.choose(release)
            self.assertEqual((preset, compiler), ("cpu", ""))
            self.assertIn("install the CUDA Toolkit 12.4 or later", message)


if __name__ == "__main__":
    unittest.main()
