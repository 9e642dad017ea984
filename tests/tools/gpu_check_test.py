"""tools/gpu-check without a GPU: its arguments, what --prepare gathers, and how stages end."""
import argparse
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "gpu-check"


def load():
    loader = importlib.machinery.SourceFileLoader("gpu_check", str(TOOL))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_check", loader))
    loader.exec_module(module)
    return module


gpu_check = load()


def run(*arguments):
    return subprocess.run([sys.executable, "-B", str(TOOL), *map(str, arguments)], capture_output=True,
                          text=True, check=False)


class Arguments(unittest.TestCase):
    def test_help_tells_the_exit_statuses(self):
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("Exit status", done.stdout)

    def test_bad_usage_is_status_2_with_the_value(self):
        for arguments, part in ((["--archive"], "--prepare"), (["--data-dir", "/nowhere"], "/nowhere"),
                                (["--limit", "0"], "0"), (["--limit", "soon"], "soon"), (["--fast"], "--fast")):
            done = run(*arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn(part, done.stderr)


class Prepare(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "to-the-gpu"

    def test_a_folder_that_is_not_empty_is_left_alone(self):
        self.folder.mkdir()
        (self.folder / "mine").touch()
        done = run("--prepare", self.folder)
        self.assertEqual(done.returncode, 2)
        self.assertEqual([p.name for p in self.folder.iterdir()], ["mine"])

    def test_what_it_gathers_is_enough_to_configure_with(self):
        if not (ROOT / ".git").exists():
            self.skipTest("the sources are not a git checkout")
        done = run("--prepare", self.folder, "--archive")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(Path(f"{self.folder}.tar.gz").exists())
        self.assertTrue((self.folder / "source/tools/gpu-check").exists())
        self.assertEqual(len(json.loads((self.folder / "prepared.json").read_text())["commit"]), 40)
        # An environment with nothing in it: no pkg-config, no CMake packages are asked.
        configured = subprocess.run(
            ["cmake", "-S", self.folder / "source", "-B", self.folder / "build", "-G", "Ninja",
             "-DSPDNN_CUDA=OFF", "-DSPDNN_BENCH=OFF", "-DSPDNN_MPI=OFF",
             "-DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_fmt=ON",
             f"-DSPDNN_DEPENDENCIES={self.folder / 'dependencies'}"],
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
        self.assertEqual(configured.returncode, 0, configured.stderr)
        built = subprocess.run(["ninja", "-C", self.folder / "build",
                                "src/core/CMakeFiles/spdnn_core.dir/error.cpp.o"], capture_output=True,
                               text=True, check=False)
        self.assertEqual(built.returncode, 0, built.stdout[-2000:])


class Stages(unittest.TestCase):
    def check(self, limit=60.0):
        check = gpu_check.Check(argparse.Namespace(limit=limit))
        self.addCleanup(check.scratch.rmdir)
        return check

    def test_a_stage_passes_fails_or_is_left_out_with_its_reason(self):
        check = self.check()

        def wrong(_):
            check.run([sys.executable, "-c", "import sys; print('7 of 9', file=sys.stderr); sys.exit(4)"])

        self.assertTrue(check.stage("good", lambda entry: entry.update(found=1)))
        self.assertFalse(check.stage("bad", wrong))
        self.assertTrue(check.stage("absent", lambda _: check.run(["no-such-program-here"])))
        stages = check.report["stages"]
        self.assertEqual([stages[name]["status"] for name in ("good", "bad", "absent")],
                         ["passed", "failed", "left out"])
        self.assertIn("status 4", stages["bad"]["reason"])
        self.assertIn("7 of 9", stages["bad"]["reason"])
        self.assertIn("no-such-program-here is not installed", stages["absent"]["reason"])

    def test_time_that_is_up_leaves_stages_out(self):
        check = self.check(limit=1.0)
        self.assertTrue(check.stage("late", lambda _: self.fail("it ran")))
        self.assertEqual(check.report["stages"]["late"]["status"], "left out")

    def test_a_program_that_takes_too_long_is_stopped(self):
        check = self.check()
        start = time.monotonic()
        check.stage("slow", lambda _: check.run([sys.executable, "-c", "import time; time.sleep(50)"], most=1.2))
        self.assertLess(time.monotonic() - start, 20)
        self.assertIn("longer than 1 s", check.report["stages"]["slow"]["reason"])


class Report(unittest.TestCase):
    def test_ranks_that_share_rows_are_all_gpus_where_there_are_several(self):
        one = gpu_check.row_devices([{"index": 0}])
        self.assertEqual(one["one GPU twice"], [{"cuda": 0}, {"cuda": 0}])
        self.assertEqual(one["GPU and CPU"], [{"cuda": 0}, {"cpu": {}}])
        self.assertNotIn("all GPUs", one)
        self.assertEqual(gpu_check.row_devices([{"index": 0}, {"index": 1}])["all GPUs"],
                         [{"cuda": 0}, {"cuda": 1}])

    def test_what_was_not_measured_has_no_figure(self):
        report = {
            "devices": [{"name": "Some GPU"}], "started": "2030-01-01", "stages": {
                "tests": {"status": "passed", "seconds": 1.5, "passed": 9, "failed": []},
                "ncu": {"status": "left out", "seconds": 0.1, "reason": "ncu is not installed"},
                "profile": {"status": "passed", "seconds": 3, "layers": {"1024": {
                    "shapes": [{"nnz": 32768}],
                    "ranks": [{"times": [[
                        {"kernel": "fast", "seconds_per_image": 2e-9, "edges_per_s": 1.6e13, "batch": 512},
                        {"kernel": "picky", "declined": "no library"}]]}]}}},
                "run": {"status": "passed", "seconds": 9, "configurations": {"1024_120": {
                    "data": "generated", "status": "verified", "images": 60000, "seconds": {"infer": 0.25},
                    "edges_per_s": {"nominal": 9.5e12, "executed": 1e12}}}},
                "train": {"status": "failed", "seconds": 9, "reason": "late", "configurations": {
                    "train_mnist_sparse": {"network": "784-1024-1024-10:128:0.05",
                                           "cuda": {"accuracy": 0.98, "epochs": 3, "seconds_per_step": 0.0005},
                                           "bf16": {"accuracy": 0.97, "seconds_per_step": 0.0002},
                                           "cpu": {"seconds_per_step": 0.004}},
                    "some": {"network": None, "cuda": {"accuracy": 0.97, "epochs": 1, "seconds_per_step": 0.25},
                             "cpu": {"seconds_per_step": 0.5}},
                    "other": {"network": None, "cuda": {"accuracy": 0.5, "epochs": 1, "seconds_per_step": 1}}}},
                "rows": {"status": "passed", "seconds": 4, "shared": {
                    "inference, one GPU twice": {
                        "status": "verified", "seconds": {"infer": 0.5}, "accuracy": None, "train_s": None,
                        "rows": {"layers": [{"forward_bytes": 3000000, "backward_bytes": 0}]}},
                    "training, one GPU": {"status": "done", "seconds": {"infer": 0}, "accuracy": 0.9,
                                          "train_s": 2.5, "rows": None}}},
                "torch": {"status": "passed", "seconds": 2, "version": "9", "layers": {}, "networks": {
                    "784-1024-1024-10:128:0.05": {"eager": 0.001, "graph": 0.00025}}}}}
        text = gpu_check.markdown(report)
        self.assertIn("| 1024 | 32768 | fast | 0.002 | 16 |  |", text)
        self.assertIn("| 1024 | 32768 | picky |  |  | no library |", text)
        self.assertIn("| ncu | left out | 0.1 | ncu is not installed |", text)
        self.assertIn("| train_mnist_sparse | 0.9800 | 3 | 0.5 | 0.2 |  | 4 | 1 | 0.25 |", text)
        self.assertIn("| some | 0.9700 | 1 | 250 |  |  | 500 |  |  |", text)
        self.assertIn("| inference, one GPU twice | verified | 0.5 | 3 |  |", text)
        self.assertIn("| training, one GPU | done | 2.5 | 0 | 0.9000 |", text)
        self.assertNotIn("| other |", text)
        self.assertIn("| 1024_120 | generated | verified | 60000 | 0.25 | 9.5 | 1 |", text)


if __name__ == "__main__":
    unittest.main()
