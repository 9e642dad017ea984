"""spdnn-gpu run in several processes: results, errors and ends as of one process.

usage: mpi_run_test.py MPIEXEC PROGRAM [TEST…]; SPDNN_DATA may name the official data.
"""

import gzip
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest

MPIEXEC, PROGRAM = sys.argv[1:3]
DATA = os.environ.get("SPDNN_DATA")
OFFICIAL = pathlib.Path(DATA or "/nowhere") / "sdgc/sdgc-neuron1024-l120.tar.xz"


def cpus(count):
    return json.dumps([{"cpu": {"threads": 1}}] * count)


def write_idx(path, shape, content):
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wb") as file:
        file.write(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content)


class MpiRun(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"),
                            "SPDNN_DATA": str(self.folder)}

    def run_program(self, processes, config, output, *options):
        """Status, standard output and error; with 0 processes, without a launcher."""
        (self.folder / "config.json").write_text(json.dumps(config))
        launcher = [] if processes == 0 else [
            MPIEXEC, "-n", str(processes), "--oversubscribe", "--allow-run-as-root",
            "-x", "ASAN_OPTIONS=detect_leaks=0"]
        done = subprocess.run(
            [*launcher, PROGRAM, "run", "config.json", "--output", output, *options],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120,
            check=False)
        return done.returncode, done.stdout, done.stderr

    def result(self, processes, config, output, *options):
        status, out, err = self.run_program(processes, config, output, *options)
        self.assertEqual(status, 0, out + err)
        return json.loads((self.folder / output / "result.json").read_text()), out

    def test_generated_network(self):
        config = {"model": {"radixnet": {"neurons": 1024, "layers": 12, "bias": -0.2}},
                  "input": {"digits": {"images": 700}}, "save_outputs": True,
                  "devices": json.loads(cpus(3)), "strategy": "data"}
        one, _ = self.result(0, config, "one")
        two, out = self.result(2, config, "two")
        self.assertEqual(out.count("VERIFIED"), 1, out)
        self.assertEqual(one["categories"], two["categories"])
        self.assertEqual(len(two["devices"]), 3)
        self.assertEqual(sum(device["images"] for device in two["devices"]), two["unique_images"])
        for file in ("categories.tsv", "outputs.tsv"):
            self.assertEqual((self.folder / "one" / file).read_bytes(),
                             (self.folder / "two" / file).read_bytes())

    @unittest.skipUnless(OFFICIAL.exists(), "SPDNN_DATA has no official data")
    def test_official_network(self):
        with tarfile.open(OFFICIAL) as tar:
            tar.extractall(self.folder)
        config = {"model": {"graph_challenge": {"neurons": 1024, "layers": 120}},
                  "input": {"graph_challenge": {}}, "verify": {"categories": True}}
        for processes, strategy, compile_ in ((4, "data", "full"), (2, "data", "off")):
            with self.subTest(processes=processes, strategy=strategy, compile=compile_):
                result, _ = self.result(processes, config, "official", "--set",
                                        f"/devices={cpus(processes)}", "--set",
                                        f"/strategy={strategy}", "--set", f"/compile={compile_}")
                self.assertEqual(result["categories"], {"count": 19, "match": True})

    def test_bad_input_is_told_once(self):
        config = {"model": {"radixnet": {"neurons": 1024, "layers": 2, "bias": -0.2}},
                  "input": {"digits": {"images": 10}}, "devices": json.loads(cpus(2))}
        status, _, err = self.run_program(3, config, "out")
        self.assertEqual(status, 2)
        self.assertEqual(err.count("error:"), 1, err)
        self.assertIn("lists 2 for 3 processes", err)

    def write_images(self):
        draw = random.Random(3)
        pictures = [bytes(draw.randrange(256) for _ in range(64)) for _ in range(4)]
        for part, count in (("train", 600), ("t10k", 100)):
            labels = bytes(draw.randrange(4) for _ in range(count))
            pixels = b"".join(
                bytes(draw.randrange(256) if draw.random() < 0.3 else p for p in pictures[label])
                for label in labels)
            write_idx(self.folder / f"set/{part}-images-idx3-ubyte.gz", (count, 8, 8), pixels)
            write_idx(self.folder / f"set/{part}-labels-idx1-ubyte.gz", (count,), labels)

    def training(self, ranks, epochs=3):
        return {"job": "train", "model": {"layers": [
                    {"outputs": 48, "density": 0.3},
                    {"outputs": 4, "topology": "dense", "activation": "identity"}]},
                "input": {"mnist": "set"}, "train": {"epochs": epochs, "batch": 64},
                "devices": json.loads(cpus(ranks))}

    def losses(self, output):
        lines = (self.folder / output / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["train_loss"] for line in lines]

    def test_training(self):
        self.write_images()
        one, _ = self.result(0, self.training(4), "one")
        four, _ = self.result(4, self.training(4), "four")
        self.assertEqual(self.losses("one"), self.losses("four"))
        self.assertEqual(one["accuracy"], four["accuracy"])
        self.assertEqual([device["images"] for device in one["devices"]],
                         [device["images"] for device in four["devices"]])
        # Other sums, but the same training.
        self.result(2, self.training(2), "two")
        for a, b in zip(self.losses("one"), self.losses("two")):
            self.assertAlmostEqual(a, b, delta=1e-4)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
