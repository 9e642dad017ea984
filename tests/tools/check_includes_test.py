"""tools/check-includes finds violations planted in a small tree, and nothing where all is right."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "check-includes"

GOOD = {
    "include/spdnn/error.hpp": "#include <string>\n",
    "include/spdnn/matrix.hpp": '#include "spdnn/error.hpp"\n',
    "include/spdnn/comm.hpp": '#include "spdnn/device.hpp"\n',
    "include/spdnn/device.hpp": '#include "spdnn/matrix.hpp"\n',
    "include/spdnn/plan.hpp": '#include "spdnn/comm.hpp"\n',
    "include/spdnn/run.hpp": '#include "spdnn/plan.hpp"\n',
    "kernels/cpu/k.hpp": '#include "spdnn/matrix.hpp"\n',
    "kernels/tables.cpp": '#include "cpu/k.hpp"\n',
    "kernels/cuda/device_code.cuh": '#include "support/simt/simt.hpp"\n',
    "kernels/cuda/k.cu": "#include <cuda_runtime.h>\n",
    "src/device/backend.hpp": '#include "spdnn/device.hpp"\n',
    "src/device/cpu.cpp": '#include "backend.hpp"\n#include <fmt/format.h>\n',
    "src/comm/group.cpp": '#include "spdnn/comm.hpp"\n',
    "src/plan/planner.cpp": '#include "spdnn/plan.hpp"\n#include "spdnn/comm.hpp"\n',
    "src/run/infer.cpp": '#include "spdnn/run.hpp"\n',
    "src/main.cpp": '#include "spdnn/run.hpp"\n#include "commands/commands.hpp"\n',
    "src/commands/commands.hpp": "\n",
    "tests/device/cpu_test.cpp": '#include "backend.hpp"\n#include "support/simt/simt.hpp"\n',
    "tests/kernels/k_test.cpp": '#include "cpu/k.hpp"\n',
    "tests/support/simt/simt.hpp": "\n",
}

# A file, a line put into it, and a word of the message.
BAD = [
    ("include/spdnn/error.hpp", '#include "spdnn/matrix.hpp"', "headers above it"),
    ("include/spdnn/comm.hpp", '#include "spdnn/comm.hpp"', "headers above it"),
    ("include/spdnn/comm.hpp", "#include <spdnn/run.hpp>", "headers above it"),
    ("include/spdnn/extra.hpp", '#include "spdnn/error.hpp"', "no place in the order"),
    ("include/spdnn/run.hpp", '#include "spdnn/extra.hpp"', "no public header"),
    ("include/spdnn/run.hpp", '#include "../../src/device/backend.hpp"', "includes the private"),
    ("kernels/cpu/k.hpp", '#include "spdnn/run.hpp"', "kernels may only"),
    ("kernels/tables.cpp", '#include "../src/device/backend.hpp"', "private to its folder"),
    ("kernels/tables.cpp", '#include "support/simt/simt.hpp"', "private to its folder"),
    ("src/device/cpu.cpp", '  #  include "spdnn/op.hpp"', "src/device may only"),
    ("src/device/cpu.cpp", '#include "cpu/k.hpp"', "private to its folder"),
    ("src/comm/group.cpp", '#include "spdnn/plan.hpp"', "src/comm may only"),
    ("src/comm/group.cpp", '#include "spdnn/io.hpp"', "src/comm may only"),
    ("src/plan/planner.cpp", '#include "spdnn/config.hpp"', "src/plan may only"),
    ("src/plan/planner.cpp", '#include "device/backend.hpp"', "private to its folder"),
    ("src/plan/planner.cpp", '#include "../device/backend.hpp"', "private to its folder"),
    ("src/run/infer.cpp", '#include "spdnn/report.hpp"', "src/run may only"),
    ("src/run/infer.cpp", "#include <cuda_runtime.h>", "GPU headers"),
    ("src/run/infer.cpp", '#include "commands/commands.hpp"', "private to its folder"),
    ("src/new/file.cpp", '#include "spdnn/error.hpp"', "no rule"),
    ("tests/device/cpu_test.cpp", '#include "cpu/k.hpp"', "private to its folder"),
]


def run_on(files):
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, "-B", TOOL, root], capture_output=True, text=True,
                              check=False)
        return done.returncode, done.stdout


class CheckIncludes(unittest.TestCase):
    def test_good_tree(self):
        status, output = run_on(GOOD)
        self.assertEqual((status, output), (0, f"check-includes: {len(GOOD)} files, 0 problems\n"))

    def test_each_planted_violation(self):
        for path, line, words in BAD:
            with self.subTest(path=path, line=line):
                status, output = run_on({**GOOD, path: "// first\n" + GOOD.get(path, "") + line})
                self.assertEqual(status, 1, output)
                found = output.splitlines()[0]
                number = GOOD.get(path, "").count("\n") + 2
                self.assertTrue(found.startswith(f"{path}:{number}: "), output)
                self.assertIn(words, found)
                self.assertIn(", 1 problems", output)

    def test_empty_tree(self):
        self.assertEqual(run_on({"README.md": ""})[0], 1)


if __name__ == "__main__":
    unittest.main()
