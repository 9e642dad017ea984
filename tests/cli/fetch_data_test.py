"""tools/fetch-data against a local server that can cut, ignore ranges, refuse and change files."""

import gzip
import hashlib
import http.server
import io
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "fetch-data"


def tar_of(members):
    """A tar.gz with a file for each name, or a symbolic link where the content is a str."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def layer(n, k):
    return f"1\t{k}\t6.250000e-02\n".encode() * n


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; `server.cut` sends so many bytes a response, then hangs up."""

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.log.append((self.path, wanted))
        if server.busy > 0:
            server.busy -= 1
            return self.send_error(503)
        if self.path not in server.files:
            return self.send_error(404)
        data = server.files[self.path]
        tag = '"' + hashlib.md5(data).hexdigest() + '"'
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") in (None, tag):
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if start >= len(data) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", tag)
        self.end_headers()
        end = len(data) if server.cut is None else start + server.cut
        self.wfile.write(data[start:end])
        self.close_connection = True

    def log_message(self, *_):
        pass


class FetchData(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name) / "data"
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.log, self.server.cut, self.server.ranges, self.server.busy = [], None, True, 0
        self.images = b"".join(b"%d\t%d\t1\n" % (i, 1 + i * 7 % 1024) for i in range(1, 4000))
        self.layers = {f"neuron1024/n1024-l{k}.tsv": layer(3, k) for k in range(1, 122)}
        self.server.files = {
            "/sdgc/dnn/neuron1024-l120-categories.tsv": b"3\n5\n",
            "/sdgc/mnist/sparse-images-1024.tsv.gz": gzip.compress(self.images),
            "/sdgc/dnn/neuron1024.tar.gz": tar_of(self.layers),
        }
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def fetch(self, *arguments):
        url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return subprocess.run([sys.executable, TOOL, "--to", self.top, "--base-url", url,
                               *arguments], capture_output=True, text=True, timeout=120)

    def succeed(self, *arguments):
        done = self.fetch(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def fail(self, status, pattern, *arguments):
        done = self.fetch(*arguments)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertRegex(done.stderr, pattern)
        self.assertNotIn("Traceback", done.stderr)

    def leftovers(self):
        return [str(file) for file in self.top.rglob("*")
                if file.name.endswith((".part", ".tag", ".tmp"))]

    def check_complete(self):
        self.assertEqual((self.top / "sparse-images-1024.tsv").read_bytes(), self.images)
        self.assertEqual((self.top / "neuron1024-l120-categories.tsv").read_bytes(), b"3\n5\n")
        for k in range(1, 121):
            name = f"neuron1024/n1024-l{k}.tsv"
            self.assertEqual((self.top / name).read_bytes(), self.layers[name])
        self.assertFalse((self.top / "neuron1024/n1024-l121.tsv").exists())
        self.assertEqual(self.leftovers(), [])

    def test_whole_download_is_unpacked_and_not_repeated(self):
        self.succeed("sdgc")
        self.check_complete()
        recorded = json.loads((self.top / "checksums.json").read_text())
        archive = self.server.files["/sdgc/dnn/neuron1024.tar.gz"]
        self.assertEqual(recorded["sdgc/dnn/neuron1024.tar.gz"], hashlib.sha256(archive).hexdigest())
        self.assertEqual(len(recorded), 3)
        requests = len(self.server.log)
        self.assertIn("already there", self.succeed("sdgc").stderr)
        self.assertEqual(len(self.server.log), requests)

    def test_cut_connections_are_resumed(self):
        self.server.cut = 700
        self.succeed("sdgc")
        self.check_complete()
        size = len(self.server.files["/sdgc/mnist/sparse-images-1024.tsv.gz"])
        ranges = [r for path, r in self.server.log if path.endswith("images-1024.tsv.gz")]
        self.assertEqual(ranges, [None] + [f"bytes={at}-" for at in range(700, size, 700)])

    def test_a_later_call_resumes(self):
        self.server.cut = 0
        self.fail(3, r"0 bytes that are here", "sdgc", "--quiet")
        data = self.server.files["/sdgc/dnn/neuron1024-l120-categories.tsv"]
        part = self.top / "neuron1024-l120-categories.tsv.part"
        part.write_bytes(data[:3])
        self.server.cut = None
        self.server.log.clear()
        self.succeed("sdgc")
        self.assertEqual(self.server.log[0][1], "bytes=3-")
        self.check_complete()

    def test_a_part_that_is_whole_already_is_used(self):
        self.succeed("sdgc")
        name = "sparse-images-1024.tsv"
        (self.top / name).unlink()
        (self.top / f"{name}.gz.part").write_bytes(self.server.files[f"/sdgc/mnist/{name}.gz"])
        self.succeed("sdgc")
        self.check_complete()

    def test_a_file_that_changed_meanwhile_starts_over(self):
        name = "neuron1024-l120-categories.tsv"
        self.top.mkdir()
        (self.top / f"{name}.part").write_bytes(b"9\n")
        (self.top / f"{name}.part.tag").write_text('"an older version"')
        self.succeed("sdgc")
        self.check_complete()

    def test_a_server_that_ignores_ranges(self):
        self.server.ranges = False
        name = "neuron1024-l120-categories.tsv"
        tag = hashlib.md5(b"3\n5\n").hexdigest()
        self.top.mkdir()
        (self.top / f"{name}.part").write_bytes(b"3\n")
        (self.top / f"{name}.part.tag").write_text(f'"{tag}"')
        self.succeed("sdgc")
        self.assertEqual(self.server.log[0][1], "bytes=2-")
        self.check_complete()

    def test_a_busy_server_is_asked_again(self):
        self.server.busy = 2
        self.succeed("sdgc")
        self.check_complete()

    def test_changed_file_is_refused_and_the_old_one_kept(self):
        self.succeed("sdgc")
        self.server.files["/sdgc/dnn/neuron1024-l120-categories.tsv"] = b"4\n5\n"
        self.fail(2, r"SHA-256 [0-9a-f]{64}, but the one recorded in .*checksums\.json", "sdgc",
                  "--force")
        self.check_complete()

    def test_damaged_file_is_fetched_again(self):
        self.succeed("sdgc")
        (self.top / "neuron1024-l120-categories.tsv").write_bytes(b"3\n6\n")
        self.succeed("sdgc")
        self.check_complete()

    def test_published_checksum_is_enforced(self):
        self.server.files["/mnist/train-images-idx3-ubyte.gz"] = gzip.compress(b"not MNIST")
        self.fail(2, r"but the published one is 440fcabf", "mnist")
        self.assertFalse((self.top / "mnist/train-images-idx3-ubyte.gz").exists())
        self.assertEqual(self.leftovers(), [])

    def test_missing_file(self):
        del self.server.files["/sdgc/mnist/sparse-images-1024.tsv.gz"]
        self.fail(3, r"sparse-images-1024\.tsv\.gz: the server answers 404", "sdgc")

    def test_no_server(self):
        done = subprocess.run([sys.executable, TOOL, "--to", self.top, "--quiet", "--base-url",
                               "http://127.0.0.1:1", "mnist"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 3)
        self.assertRegex(done.stderr, "refused")

    def test_damaged_archives(self):
        images, layers = "/sdgc/mnist/sparse-images-1024.tsv.gz", "/sdgc/dnn/neuron1024.tar.gz"
        whole = dict(self.server.files)
        for name, data in ((images, whole[images][:-9]), (images, b"plain text"),
                           (layers, whole[layers][:len(whole[layers]) // 2]), (layers, b"junk")):
            with self.subTest(name=name, bytes=len(data)):
                self.server.files[name] = data
                self.fail(2, r"not whole as", "sdgc")
                self.assertEqual(self.leftovers(), [])
                self.server.files[name] = whole[name]
        self.succeed("sdgc")
        self.check_complete()

    def test_archive_without_all_layers(self):
        del self.layers["neuron1024/n1024-l77.tsv"]
        self.server.files["/sdgc/dnn/neuron1024.tar.gz"] = tar_of(self.layers)
        self.fail(2, r"1 of 120 layers are not in it, e\.g\. n1024-l77\.tsv", "sdgc")

    def test_archive_that_leads_outside(self):
        for name, content in (("../escaped.tsv", b"x"), ("/tmp/spdnn-escaped.tsv", b"x")):
            with self.subTest(name=name):
                self.server.files["/sdgc/dnn/neuron1024.tar.gz"] = tar_of({name: content})
                self.fail(2, r"leads outside", "sdgc")
                self.assertFalse((self.top.parent / "escaped.tsv").exists())

    def test_links_in_an_archive_are_not_followed(self):
        outside = self.top.parent / "outside.tsv"
        outside.write_bytes(b"kept")
        self.layers["neuron1024/n1024-l1.tsv"] = str(outside)
        self.server.files["/sdgc/dnn/neuron1024.tar.gz"] = tar_of(self.layers)
        self.fail(2, r"1 of 120 layers are not in it", "sdgc")
        self.assertEqual(outside.read_bytes(), b"kept")

    def test_wrong_arguments(self):
        self.fail(2, r"no data set 'imagenet'; there are mnist, sdgc", "imagenet")
        self.fail(2, r"name a data set")
        self.fail(2, r"invalid choice: 1000", "sdgc", "--neurons", "1000")
        self.fail(2, r"not an http or https address", "mnist", "--base-url", "file:///etc")

    def test_commands_of_the_readme(self):
        text = (TOOL.parents[1] / "README.md").read_text()
        commands = re.findall(r"^tools/fetch-data (.*)$", text, re.MULTILINE)
        self.assertTrue(commands)
        for command in commands:
            words = command.split()
            self.assertTrue({"--list", "mnist", "sdgc"} & set(words), command)
            done = subprocess.run([sys.executable, "-B", TOOL, *words, "--list"],
                                  capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_folder_that_cannot_be_made(self):
        self.top.write_text("a file is in the way")
        self.fail(3, r"data", "sdgc")

    def test_damaged_record(self):
        self.top.mkdir()
        (self.top / "checksums.json").write_text("[1")
        self.fail(2, r"checksums\.json: not a JSON object", "sdgc")

    def test_list_fetches_nothing(self):
        done = self.succeed("--list")
        self.assertEqual(len(done.stdout.splitlines()), 7)
        self.assertEqual(self.server.log, [])
        self.assertFalse(self.top.exists())


if __name__ == "__main__":
    unittest.main()
