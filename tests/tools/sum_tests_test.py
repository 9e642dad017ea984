"""tools/sum-tests counts what GoogleTest and other programs did, as ctest reports it."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from xml.sax.saxutils import escape

TOOL = Path(__file__).resolve().parents[2] / "tools" / "sum-tests"

MIXED = """[ RUN      ] A.Fails/0
a.cpp:4: Failure
[  FAILED  ] A.Fails/0, where GetParam() = 3 (0 ms)
[ RUN      ] A.Skips
a.cpp:5: Skipped
no data:
set SPDNN_DATA
[  SKIPPED ] A.Skips (0 ms)
[==========] 5 tests from 1 test suite ran. (0 ms total)
[  PASSED  ] 3 tests.
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] A.Skips
[  FAILED  ] 1 test, listed below:
[  FAILED  ] A.Fails/0, where GetParam() = 3

 1 FAILED TEST
"""
PASSES = "[  PASSED  ] 132 tests.\n"
CRASHES = "[ RUN      ] A.Crashes\n"


def case(name, status, output="", inside=""):
    return (f'<testcase name="{name}" status="{status}">{inside}'
            f"<system-out>{escape(output)}</system-out></testcase>")


def summed(**stages):
    with tempfile.TemporaryDirectory() as folder:
        for stage, cases in stages.items():
            text = "<testsuite>" + "".join(cases) + "</testsuite>"
            Path(folder, stage + ".xml").write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, "-B", TOOL, folder], capture_output=True, text=True,
                              check=False)
        return done.returncode, done.stdout.splitlines()


class SumTests(unittest.TestCase):
    def test_all_stages_together(self):
        status, lines = summed(cpu=[case("a", "run", PASSES), case("script", "run")],
                               asan=[case("a", "run", PASSES)])
        self.assertEqual(status, 0)
        self.assertIn("asan: 132 passed, 0 failed, 0 skipped", lines)
        self.assertIn("cpu: 133 passed, 0 failed, 0 skipped", lines)
        self.assertEqual(lines[-1], "265 passed, 0 failed")

    def test_failures_and_skips_are_named(self):
        status, lines = summed(cpu=[case("a", "fail", MIXED, '<failure message=""/>')])
        self.assertEqual(status, 1)
        self.assertIn("failed in cpu: a: A.Fails/0", lines)
        self.assertIn("skipped (1 in cpu): no data: set SPDNN_DATA", lines)
        self.assertEqual(lines[-1], "3 passed, 1 failed")

    def test_a_program_that_dies_failed(self):
        for output in [CRASHES, PASSES, ""]:  # before, after and without any test
            status, lines = summed(cpu=[case("a", "fail", output), case("b", "run", PASSES)])
            self.assertEqual(status, 1)
            self.assertIn("failed in cpu: a", lines)
            self.assertTrue(lines[-1].endswith(" passed, 1 failed"), lines)

    def test_a_program_that_is_not_there_failed(self):
        gone = '<skipped message="Unable to find executable"/>'
        status, lines = summed(cpu=[case("a", "notrun", "Unable to find", gone)])
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed"))

    def test_a_script_may_skip(self):
        skip = '<skipped message="SKIP_RETURN_CODE=77"/>'
        status, lines = summed(cpu=[case("a", "notrun", "no tool\n", skip), case("b", "run")])
        self.assertEqual((status, lines[-1]), (0, "1 passed, 0 failed"))
        self.assertIn("skipped (1 in cpu): no tool", lines)

    def test_nothing_ran(self):
        self.assertEqual(summed()[0], 1)


if __name__ == "__main__":
    unittest.main()
