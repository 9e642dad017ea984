"""tools/plot-stragglers draws what a study found and fills the marked sections of its page."""
import json
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "plot-stragglers"
STRATEGIES = ["data", "model", "task_manager", "task_stealing", "data_then_model"]
SECTIONS = ["conditions", "times", "agreement", "averages", "many", "costs"]


def strategy(name, seconds):
    rank = {"busy_s": seconds / 2, "idle_s": seconds / 2, "images": 8, "images_taken_over": 3, "helped_segments": 1}
    infer = {"median_s": seconds, "min_s": seconds, "max_s": 1.5 * seconds, "samples_s": [seconds]}
    return {"strategy": name, "infer": infer, "ranks": [rank, rank], "speedup_over_data": 1.25, "of_best_other": 0.75,
            "simulated": {"seconds": 1.05 * seconds, "relative_error": 0.05, "ranks": [rank, rank]}}


def study():
    """Every strategy takes 0.4 s, but data_then_model 0.2 s; simulated, half of that on 4 ranks."""
    times = [0.4, 0.4, 0.4, 0.4, 0.2]
    scenarios = [{"scenario": f"scenario {i}", "slowdowns": [1, 1], "evenly_spread_s": 0.1,
                  "strategies": [strategy(*each) for each in zip(STRATEGIES, times)]} for i in range(4)]
    points = [{"ranks": ranks, "slowdowns": [1.0] * ranks,
               "strategies": [{"strategy": name, "seconds": 2 * seconds / ranks, "idle_part": 0.25}
                              for name, seconds in zip(STRATEGIES, times)]} for ranks in (2, 4)]
    costs = dict.fromkeys(["step_s", "copy_s", "wake_s", "meet_s", "fetch_s", "prepare_alone_s", "prepare_shared_s",
                           "finish_s"], 1e-6)
    costs["steady"] = {"load_s": 1e-6, "pack_s": 1e-6, "segment_s": [[0.0, 1e-3, 2e-3]]}
    costs["drowsy"] = {"load_s": 3e-6, "pack_s": 2e-6, "segment_s": [[0.0, 2e-3, 3e-3]]}
    return {"conditions": {"commit": "0123abc", "dirty": False, "date": "2026-01-01", "cpu": "a CPU"},
            "images": 60000, "survivors": 1800, "neurons": 1024, "layers": 120, "other_cores": 0.01,
            "calibration": [{"simulated_s": 0.3}], "costs": costs, "scenarios": scenarios,
            "many_ranks": [{"scenario": f"scenario {i}", "points": points} for i in range(4)]}


class PlotStragglers(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.docs = Path(folder.name)
        self.page = self.docs / "stragglers.md"
        self.page.write_text("# A page\n" + "".join(f"<!-- {s} -->\nold\n<!-- end -->\n" for s in SECTIONS))
        (self.docs / "study.json").write_text(json.dumps(study()))

    def run_tool(self, *arguments):
        return subprocess.run([sys.executable, "-B", TOOL, *arguments], capture_output=True, text=True)

    def test_fills_every_section_again_and_again(self):
        for _ in range(2):
            result = self.run_tool(self.docs / "study.json", self.docs)
            self.assertEqual(result.returncode, 0, result.stderr)
            text = self.page.read_text()
            self.assertNotIn("old", text)
            self.assertTrue(text.startswith("# A page\n"))
            self.assertIn("| **average** | **+100 %** | **+100 %** | **+100 %** | **+100 %** |", text)
            self.assertIn("20 of 20 are within 10 %", text)
            self.assertIn("takes 0.500 times as long", text)
            self.assertEqual(text.count("<!-- end -->"), len(SECTIONS))

    def test_drawings_are_well_formed(self):
        self.run_tool(self.docs / "study.json", self.docs)
        for name in ("time", "ranks", "many"):
            root = xml.etree.ElementTree.parse(self.docs / "stragglers" / f"{name}.svg").getroot()
            words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
            for each in STRATEGIES:
                self.assertIn(each, words)

    def test_names_a_section_that_is_missing(self):
        self.page.write_text("# A page\n")
        result = self.run_tool(self.docs / "study.json", self.docs)
        self.assertEqual(result.returncode, 1)
        self.assertIn("no section <!-- conditions -->", result.stderr)
        self.assertEqual(self.run_tool().returncode, 2)


if __name__ == "__main__":
    unittest.main()
