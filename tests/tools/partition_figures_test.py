"""tools/partition-figures gathers what a program prints, draws it and fills its section of the page."""
import json
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "partition-figures"
# Stands in for spdnn-gpu: words = ranks · 100 for every model, half of it for hypergraph.
PROGRAM = """#!/usr/bin/env python3
import json, sys
command, options = sys.argv[1], sys.argv[3:]
if "--fail" in sys.argv[0]:
    sys.exit(2)
config = json.load(open(sys.argv[2]))
if "path" in config["model"]:
    for layer in range(1, 13):
        lines = open(config["model"]["path"].format(layer)).read().splitlines()
        assert len(lines) == 64 * 32 and len(set(lines)) == len(lines)
value = lambda name: options[options.index(name) + 1].split(",")
rows = []
for model in value("--models"):
    for ranks in map(int, value("--parts")):
        words = ranks * (50 if model == "hypergraph" else 100)
        row = {"model": model, "words": words, "messages": ranks, "max_sent": 7, "max_received": 8,
               "imbalance": 0.01, "ranks": ranks, "parts": ranks, "cpu_seconds": 1.5, "partition_cpu_seconds": 1.5}
        if command == "partition":
            rows.append(row)
            continue
        for batch in map(int, value("--batch")):
            rows.append({**row, "batch": batch, "training": {"seconds": batch / ranks}})
print(json.dumps({"partitions": rows} if command == "partition" else {"steps": rows, "links": {}, "measured": []}))
"""


class PartitionFigures(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.docs = Path(folder.name)
        self.study = self.docs / "study.json"
        (self.docs / "partitioning.md").write_text("# A page\n<!-- study -->\nold\n<!-- end -->\nrest\n")
        self.program = self.make_program("program")

    def make_program(self, name):
        program = self.docs / name
        program.write_text(PROGRAM)
        program.chmod(0o755)
        return program

    def run_tool(self, *arguments):
        return subprocess.run([sys.executable, "-B", TOOL, *arguments], capture_output=True, text=True)

    def test_measures_draws_and_fills_again_and_again(self):
        for extra, panels in (["--volumes"], 1), ([], 3):
            for neurons in "128", "64":  # one after the other, both stay
                result = self.run_tool("measure", self.program, self.study, "--neurons", neurons, "--parts", "2,8",
                                       *extra)
                self.assertEqual(result.returncode, 0, result.stderr)
            networks = json.loads(self.study.read_text())["networks"]
            self.assertEqual([len(network["rows"]) for network in networks], [8, 8])
            result = self.run_tool("draw", self.study, self.docs)
            self.assertEqual(result.returncode, 0, result.stderr)
            text = (self.docs / "partitioning.md").read_text()
            self.assertNotIn("old", text)
            self.assertTrue(text.startswith("# A page\n") and text.endswith("rest\n"))
            self.assertIn("| 8 | 800 | 800 | 800 | 400 | 8 / 8 | 7 / 7 | 1.5 |", text)
            self.assertEqual("step of 64, ms" in text, not extra)
            drawn = xml.etree.ElementTree.parse(self.docs / "partitioning" / "scaling.svg").getroot()
            lines = [e for e in drawn.iter() if e.tag.endswith("polyline")]
            self.assertEqual(len(lines), 2 * panels * 4)
        self.assertIn("| 125 / 125 / 125 / 125 | 8e+03 / 8e+03 / 8e+03 / 8e+03 |", text)

    def test_measured_steps_stand_beside_predicted_ones(self):
        ranks = {"neurons": 64, "layers": 3, "cases": [
            {"ranks": count, "model": "random", "batch": batch, "declared_link": link, "other_cores": 0.25,
             "step": {"median_s": 0.004 / count}, "predicted_over_measured": 0.9 + batch / 1000}
            for count in (1, 2) for batch in (1, 64) for link in ((False, True) if count > 1 else (False,))]}
        (self.docs / "ranks.json").write_text(json.dumps(ranks))
        self.assertEqual(self.run_tool("measure", self.program, self.study, "--neurons", "64").returncode, 0)
        draw = ["draw", self.study, self.docs, "--ranks", self.docs / "ranks.json"]
        self.assertEqual(self.run_tool(*draw).returncode, 1)  # the page has no place for them
        page = self.docs / "partitioning.md"
        page.write_text(page.read_text() + "<!-- steps -->\nolder\n<!-- end -->\nlast\n")
        for _ in range(2):
            result = self.run_tool(*draw)
            self.assertEqual(result.returncode, 0, result.stderr)
            text = page.read_text()
            self.assertNotIn("older", text)
            self.assertIn("| 1 | random | 4.0 ms, 0.90 | 4.0 ms, 0.96 | – | – |", text)
            self.assertIn("| 2 | random | 2.0 ms, 0.90 | 2.0 ms, 0.96 | 2.0 ms, 0.90 | 2.0 ms, 0.96 |", text)
            self.assertIn("2 ranks: 0.90 to 0.96.", text)
            self.assertTrue(text.endswith("last\n"))

    def test_random_networks_are_made(self):
        result = self.run_tool("measure", self.program, self.study, "--neurons", "64", "--parts", "2", "--random")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(json.loads(self.study.read_text())["networks"][0]["layers"], 12)

    def test_what_cannot_be_done_is_refused(self):
        self.assertEqual(self.run_tool().returncode, 2)
        self.assertEqual(self.run_tool("measure", self.make_program("p--fail"), self.study).returncode, 3)
        self.assertFalse(self.study.exists())
        self.assertEqual(self.run_tool("measure", self.program, self.study, "--neurons", "64").returncode, 0)
        (self.docs / "partitioning.md").write_text("nothing to fill\n")
        result = self.run_tool("draw", self.study, self.docs)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("no section", result.stderr)


if __name__ == "__main__":
    unittest.main()
