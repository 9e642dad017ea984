"""spdnn-gpu in several processes: results, errors and ends as of one process.

usage: mpi_run_test.py MPIEXEC PROGRAM [TEST…]; SPDNN_DATA may name the official data.
"""

import gzip
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
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


class Processes(unittest.TestCase):
    program = [PROGRAM]

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"),
                            "SPDNN_DATA": str(self.folder)}

    def start(self, processes, config, output, *options):
        """With 0 processes, without a launcher."""
        (self.folder / "config.json").write_text(json.dumps(config))
        return self.launch(processes, "run", "config.json", "--output", output, *options)

    def launch(self, processes, *arguments):
        launcher = [] if processes == 0 else [
            MPIEXEC, "-n", str(processes), "--oversubscribe", "--allow-run-as-root",
            "-x", "ASAN_OPTIONS=detect_leaks=0"]
        return subprocess.Popen(
            [*launcher, *self.program, *arguments],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)

    def run_program(self, processes, config, output, *options):
        """Status, standard output and error."""
        process = self.start(processes, config, output, *options)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def result(self, processes, config, output, *options):
        status, out, err = self.run_program(processes, config, output, *options)
        self.assertEqual(status, 0, out + err)
        return json.loads((self.folder / output / "result.json").read_text()), out

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

    def training(self, ranks, epochs=10):  # of 10 steps each
        return {"job": "train", "model": {"layers": [
                    {"outputs": 48, "density": 0.3},
                    {"outputs": 4, "topology": "dense", "activation": "identity"}]},
                "input": {"mnist": "set"}, "train": {"epochs": epochs, "batch": 64},
                "devices": json.loads(cpus(ranks))}

    def losses(self, output):
        lines = (self.folder / output / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["train_loss"] for line in lines]


class MpiRun(Processes):
    def test_generated_network(self):
        config = {"model": {"radixnet": {"neurons": 1024, "layers": 12, "bias": -0.2}},
                  "input": {"digits": {"images": 700}}, "save_outputs": True,
                  "devices": json.loads(cpus(3)), "strategy": "task_stealing"}
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
        for processes, strategy, compile_ in ((4, "data", "full"), (4, "model", "off"),
                                              (4, "data_then_model", "off"), (2, "data", "off"),
                                              (3, "task_manager", "off"), (3, "task_stealing", "safe"),
                                              (2, "data_then_model", "safe"), (4, "grid", "off")):
            with self.subTest(processes=processes, strategy=strategy, compile=compile_):
                result, _ = self.result(processes, config, "official", "--set",
                                        f"/devices={cpus(processes)}", "--set",
                                        f"/strategy={strategy}", "--set", f"/compile={compile_}")
                self.assertEqual(result["categories"], {"count": 19, "match": True})
                if strategy == "model":
                    self.check_rows(result)

    def check_rows(self, result):
        """Ranks that own rows sent what their partition predicts, layer by layer."""
        layers = result["rows"]["layers"]
        self.assertEqual([layer["forward_bytes"] for layer in layers],
                         [layer["predicted_forward_bytes"] for layer in layers])
        self.assertGreater(layers[1]["forward_bytes"], 0)

    def test_rows_have_owners(self):
        config = {"model": {"radixnet": {"neurons": 1024, "layers": 12, "bias": -0.2}},
                  "input": {"digits": {"images": 300}}, "save_outputs": True,
                  "devices": json.loads(cpus(3))}
        one, _ = self.result(0, config, "one")
        for partition in ("auto", "cyclic"):
            with self.subTest(partition=partition):
                three, _ = self.result(3, config, "three", "--set", "/strategy=model", "--set",
                                       f"/partition={partition}")
                self.check_rows(three)
                self.assertEqual(one["categories"], three["categories"])
                self.assertEqual((self.folder / "one/outputs.tsv").read_bytes(),
                                 (self.folder / "three/outputs.tsv").read_bytes())
        grid, _ = self.result(2, config, "grid", "--set", f"/devices={cpus(5)}", "--set",
                              "/strategy=grid", "--set", "/split=[0,1,3,2,2]")
        self.check_rows(grid)
        self.assertEqual(grid["plan"]["groups"], [[2, 4], [3, 1]])
        self.assertEqual((self.folder / "one/outputs.tsv").read_bytes(),
                         (self.folder / "grid/outputs.tsv").read_bytes())

    def test_bad_input_is_told_once(self):
        config = {"model": {"radixnet": {"neurons": 1024, "layers": 2, "bias": -0.2}},
                  "input": {"digits": {"images": 10}}, "devices": json.loads(cpus(2))}
        status, _, err = self.run_program(3, config, "out")
        self.assertEqual(status, 2)
        self.assertEqual(err.count("error:"), 1, err)
        self.assertIn("lists 2 for 3 processes", err)

    def disagree(self, config, *options):
        """What two processes say, the second of which is given other options."""
        (self.folder / "config.json").write_text(json.dumps(config))
        mpi = [MPIEXEC, "--oversubscribe", "--allow-run-as-root", "-x", "ASAN_OPTIONS=detect_leaks=0"]
        command = ["-n", "1", PROGRAM, "run", "config.json", "--output", "out"]
        done = subprocess.run([*mpi, *command, ":", *command, *options], cwd=self.folder,
                              env=self.environment, timeout=120, capture_output=True, text=True)
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertEqual(done.stderr.count("error:"), 1, done.stderr)
        self.assertIn("process 1 (host ", done.stderr)
        return done.stderr

    def test_processes_that_disagree(self):
        config = {"model": {"radixnet": {"neurons": 1024, "layers": 2, "bias": -0.2}},
                  "input": {"digits": {"images": 10}}, "seed": 5}
        self.assertIn("/seed is 6 there, and 5 here", self.disagree(config, "--set", "/seed=6"))
        self.write_images()
        self.assertIn("--resume", self.disagree(self.training(2), "--resume"))
        # Each reads files of its own.
        shutil.copytree(self.folder / "set", self.folder / "other/set")
        write_idx(self.folder / "other/set/train-labels-idx1-ubyte.gz", (600,), bytes(600))
        self.assertIn("as large, but other values",
                      self.disagree(self.training(2), "--data-dir", "other"))
        for folder, weight in ((self.folder, 0.5), (self.folder / "other", 0.25)):
            (folder / "net.tsv").write_text("".join(f"{i} {i} {weight}\n" for i in range(1, 1025)))
        config["model"] = {"path": "net.tsv", "neurons": 1024}
        self.assertIn("another network", self.disagree(config, "--data-dir", "other"))
        # What is not said to be alike may differ.
        self.result(2, config, "out", "--set", "/memory_limit=1GB")

    def test_training(self):
        self.write_images()
        one, _ = self.result(0, self.training(4), "one")
        four, _ = self.result(4, self.training(4), "four")
        self.assertEqual(self.losses("one"), self.losses("four"))
        self.assertEqual(one["accuracy"], four["accuracy"])
        rows, _ = self.result(4, self.training(4), "rows", "--set", "/strategy=model", "--set",
                              "/partition=hypergraph")
        for way in ("forward", "backward"):
            self.assertEqual([layer[f"{way}_bytes"] for layer in rows["rows"]["layers"]],
                             [layer[f"predicted_{way}_bytes"] for layer in rows["rows"]["layers"]])
        for a, b in zip(self.losses("one"), self.losses("rows")):
            self.assertAlmostEqual(a, b, delta=1e-4)
        self.assertEqual([device["images"] for device in one["devices"]],
                         [device["images"] for device in four["devices"]])
        # A first rank without a share: another one of its process leads, or it goes with the steps.
        for processes, strategy, note in ((2, "data", "rank 1 writes"), (2, "model", "rank 1 writes"),
                                          (4, "data", "goes with"), (4, "model", "goes with")):
            with self.subTest(processes=processes, strategy=strategy):
                led, _ = self.result(processes, self.training(4), "led", "--set",
                                     f"/strategy={strategy}", "--set", "/split=[0,2,1,1]")
                self.assertTrue(any(note in said for said in led["notes"]), led["notes"])
                if note != "goes with":
                    self.assertEqual(led["devices"][0]["busy_s"], 0)
                for a, b in zip(self.losses("one"), self.losses("led"), strict=True):
                    self.assertAlmostEqual(a, b, delta=1e-4)
        # Other sums, but the same training.
        self.result(2, self.training(2), "two")
        for a, b in zip(self.losses("one"), self.losses("two")):
            self.assertAlmostEqual(a, b, delta=1e-4)

    def test_bench_node(self):
        config = {"model": {"radixnet": {"neurons": 1024, "layers": 2, "bias": -0.2}},
                  "input": {"digits": {"images": 300}}, "devices": json.loads(cpus(3))}
        (self.folder / "config.json").write_text(json.dumps(config))
        self.write_images()
        (self.folder / "train.json").write_text(json.dumps(self.training(3)))
        for name, items in (("config.json", 300), ("train.json", 64)):
            with self.subTest(name):
                process = self.launch(2, "bench", "node", name, "--json", "--html", "node.html")
                out, err = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 0, out + err)
                node = json.loads(out)  # one process speaks
                self.assertEqual(sum(device["share"] for device in node["devices"]), items)
                for device in node["devices"]:
                    self.assertGreater(device["fma_per_s"], 0)
                    self.assertGreater(len(device["works"]), 0)
                self.assertEqual(sorted((link["from"], link["to"]) for link in node["links"]),
                                 [(a, b) for a in range(3) for b in range(3) if a != b])
                self.assertTrue((self.folder / "node.html").exists())
        (self.folder / "config.json").write_text(json.dumps({**config, "devices": config["devices"][:1]}))
        process = self.launch(2, "bench", "node", "config.json")
        out, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 2, out + err)
        self.assertEqual(err.count("error:"), 1, err)

    def newest_checkpoint(self):
        """The epoch after which it was written, or 0."""
        files = (self.folder / "out/checkpoints").glob("checkpoint-*.safetensors")
        return max((int(file.stem.removeprefix("checkpoint-")) for file in files), default=0)

    def strike(self, with_signal, limit, *options):
        """Sends a signal to one of four ranks as it trains; what the run says, having ended within
        `limit` seconds."""
        process = self.start(4, self.training(4, epochs=100), "out", *options)
        self.addCleanup(process.kill)
        epoch = random.randint(1, 20)
        deadline = time.monotonic() + 60
        while self.newest_checkpoint() < epoch:
            self.assertLess(time.monotonic(), deadline)
            self.assertIsNone(process.poll())
            time.sleep(0.01 * random.random())
        os.kill(pid_of_rank(process.pid, 2), with_signal)
        start = time.monotonic()
        _, err = process.communicate(timeout=120)
        self.assertLess(time.monotonic() - start, limit)
        self.assertNotEqual(process.returncode, 0)
        self.assertEqual(err.count("error:"), 1, err)
        line = next(line for line in err.splitlines() if "error:" in line)
        for part in ("process 2", "host", "rank 2 on", "in "):
            self.assertIn(part, line)
        return line

    def test_killed_rank_ends_the_run(self):
        self.write_images()
        for _ in range(int(os.environ.get("SPDNN_KILLS", "3"))):
            self.assertIn("died", self.strike(signal.SIGKILL, 5))
            result, _ = self.result(3, self.training(3, epochs=100), "out", "--resume")
            self.assertGreater(result["train"]["resumed_epochs"], 0)
            self.assertEqual(len(self.losses("out")), 100)
            shutil.rmtree(self.folder / "out")

    def test_hung_rank_ends_the_run(self):
        self.write_images()
        # With the patience that is the default, 20 s, a run is to end within 30 s.
        line = self.strike(signal.SIGSTOP, 3 + 10, "--set", "/comm/patience_seconds=3")
        self.assertIn("no sign of life", line)


# Processes that think they are on hosts of their own: each has a host name and file systems of its own.
SEPARATE = ["unshare", "--uts", "--mount"]


def can_separate():
    try:
        return subprocess.run([*SEPARATE, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@unittest.skipUnless(can_separate(), "unshare, of util-linux, may not make namespaces here")
class MpiHosts(Processes):
    def setUp(self):
        super().setUp()
        self.write_images()
        cpu = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        (self.folder / "cpuinfo").write_text("".join(
            "model name : Another One\n" if line.startswith("model name") else line + "\n"
            for line in cpu))
        for name in ("hidden", "out"):
            (self.folder / name).mkdir()

    def separate(self, second):
        """From here on every process is on a host of its own; the second prepares its with a shell
        command."""
        script = ('hostname host$OMPI_COMM_WORLD_RANK; '
                  f'if [ $OMPI_COMM_WORLD_RANK = 1 ]; then {second}; fi; exec "$0" "$@"')
        self.program = [*SEPARATE, "sh", "-e", "-c", script, PROGRAM]

    def test_hosts_are_told_apart(self):
        if "Another One" not in (self.folder / "cpuinfo").read_text():
            self.skipTest("/proc/cpuinfo names no model here")
        self.separate("true")
        alike, out = self.result(2, self.training(2), "alike", "--set", "/split=profiled")
        self.assertEqual([device["host"] for device in alike["devices"]], ["host0", "host1"])
        self.assertIn("on host1", out)
        self.assertEqual(alike["train"]["shares"][0]["images"], [32, 32])
        self.assertEqual(alike["train"]["shares"][0]["predicted_s"], 0, "they were measured")
        self.separate("mount --bind cpuinfo /proc/cpuinfo")
        unlike, _ = self.result(2, self.training(2), "unlike", "--set", "/split=profiled")
        self.assertIn("Another One", unlike["devices"][1]["name"])
        self.assertGreater(unlike["train"]["shares"][0]["predicted_s"], 0, "they were not measured")

    def test_resumes_where_only_the_first_host_has_checkpoints(self):
        self.separate("mount --bind hidden out")
        self.result(2, self.training(2, epochs=4), "out")
        newest = self.folder / "out/checkpoints/checkpoint-000004.safetensors"
        undisturbed = newest.read_bytes()
        newest.unlink()
        resumed, _ = self.result(2, self.training(2, epochs=4), "out", "--resume")
        self.assertEqual(resumed["train"]["resumed_epochs"], 3)
        self.assertEqual(newest.read_bytes(), undisturbed)
        self.assertEqual(list((self.folder / "hidden").iterdir()), [])

    def test_hosts_with_other_files(self):
        self.result(0, self.training(1, epochs=2), "first")
        start, other = sorted((self.folder / "first/checkpoints").iterdir())
        self.separate(f"mount --bind {other} {start}")
        config = self.training(2)
        config["train"]["start_from"] = str(start)
        status, _, err = self.run_program(2, config, "out")
        self.assertEqual(status, 2, err)
        self.assertEqual(err.count("error:"), 1, err)
        self.assertIn(f"process 1 (host host1) has another {start}", err)


HOSTS = pathlib.Path(__file__).resolve().parents[2] / "tools/hosts"


def can_make_hosts():
    try:
        return subprocess.run([HOSTS, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@unittest.skipUnless(can_make_hosts(), "tools/hosts can make none here")
class TcpHosts(Processes):
    """Processes that reach one another over TCP alone."""

    def on_hosts(self, config, output):
        (self.folder / "config.json").write_text(json.dumps(config))
        command = [HOSTS, "--processes", "2"]
        ran = subprocess.run([*command, "env", "ASAN_OPTIONS=detect_leaks=0", PROGRAM, "run",
                              "config.json", "--output", output],
                             cwd=self.folder, env=self.environment, timeout=120,
                             capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        result = json.loads((self.folder / output / "result.json").read_text())
        self.assertEqual([device["host"] for device in result["devices"]],
                         ["host1", "host1", "host2", "host2"])

    def test_results_are_those_of_one_process(self):
        config = {"model": {"radixnet": {"neurons": 1024, "layers": 12, "bias": -0.2}},
                  "input": {"digits": {"images": 500}}, "save_outputs": True,
                  "devices": json.loads(cpus(4))}
        self.result(0, config, "one")
        for strategy in ("data_then_model", "model", "grid"):
            with self.subTest(strategy):
                self.on_hosts({**config, "strategy": strategy}, "several")
                self.assertEqual((self.folder / "one/outputs.tsv").read_bytes(),
                                 (self.folder / "several/outputs.tsv").read_bytes())
        self.write_images()
        self.result(0, self.training(4), "one")
        self.on_hosts(self.training(4), "several")
        self.assertEqual(self.losses("one"), self.losses("several"))


def pid_of_rank(launcher, rank):
    """The process that a launcher started as `rank`."""
    wanted = f"OMPI_COMM_WORLD_RANK={rank}".encode()
    for folder in pathlib.Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == launcher and wanted in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except (OSError, IndexError, ValueError):
            continue
    raise AssertionError(f"no process of rank {rank}")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
