"""Files from a web server: resumed where they were cut off, whole or not there at all."""
import errno
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request

ATTEMPTS = 5
TIMEOUT_S = 60
CHUNK = 1 << 20


class FetchError(Exception):
    """Ends the program with a message and an exit status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Untrusted(FetchError):
    def __init__(self, message):
        super().__init__(2, message)


class Failure(FetchError):
    def __init__(self, message):
        super().__init__(3, message)


class Progress:
    """A line that redraws itself on a terminal, a plain line every 10 s elsewhere."""

    def __init__(self, quiet):
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()
        self.shown = time.monotonic()
        self.drawn = False

    def say(self, text):
        if not self.quiet:
            self.end()
            print(text, file=sys.stderr, flush=True)

    def show(self, what, done, total):
        now = time.monotonic()
        if self.quiet or now - self.shown < (0.2 if self.terminal else 10):
            return
        self.shown = now
        share = f"{100 * done / total:5.1f} % of {total / 1e6:.1f} MB" if total else ""
        text = f"  {what}: {done / 1e6:.1f} MB {share}"
        print(f"\r\033[K{text}" if self.terminal else text, end="" if self.terminal else "\n",
              file=sys.stderr, flush=True)
        self.drawn = self.terminal

    def end(self):
        if self.drawn:
            print(file=sys.stderr)
            self.drawn = False


def sha256_of(file):
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def save(stream, target):
    """Copies a stream to a file that gets its name when it is complete and on the disk."""
    temporary = target.with_name(target.name + ".tmp")
    try:
        with open(temporary, "wb") as out:
            shutil.copyfileobj(stream, out, CHUNK)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


class Download:
    """One file on its way: NAME.part holds its bytes, NAME.part.tag which version they are of."""

    def __init__(self, url, part, checksum_known, progress):
        self.url = url
        self.part = part
        self.tag_file = part.with_name(part.name + ".tag")
        self.checksum_known = checksum_known
        self.progress = progress

    def run(self):
        with open(self.part, "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Failure(f"{self.part}: another fetch-data is writing it; wait for it to end")
            failures = 0
            most = self.part.stat().st_size
            while True:
                try:
                    return self.transfer()
                except urllib.error.HTTPError as error:
                    if error.code < 500 and error.code not in (408, 429):
                        raise Failure(f"{self.url}: the server answers {error.code} "
                                      f"{error.reason}; is the file still published there?")
                    reason = f"{error.code} {error.reason}"
                except (OSError, http.client.HTTPException) as error:
                    if getattr(error, "filename", None) is not None or \
                            getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                        raise  # the file system, not the network
                    reason = str(getattr(error, "reason", error)) or type(error).__name__
                here = self.part.stat().st_size
                failures = 0 if here > most else failures + 1
                most = max(most, here)
                if failures == ATTEMPTS:
                    raise Failure(f"{self.url}: {reason}; run the same command again to go on "
                                  f"from the {here} bytes that are here")
                self.progress.say(f"  {reason}; trying again")
                time.sleep(2 ** failures / 8)

    def discard(self):
        self.part.unlink(missing_ok=True)
        self.tag_file.unlink(missing_ok=True)

    def request(self):
        """The whole file, or what is missing of it where both sides know it is the same version."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "spdnn-gpu fetch-data",
                                                            "Accept-Encoding": "identity"})
        have = self.part.stat().st_size
        tag = self.tag_file.read_text() if self.tag_file.exists() else ""
        if have and (tag or self.checksum_known):
            request.add_header("Range", f"bytes={have}-")
            if tag:
                request.add_header("If-Range", tag)
            return request, have
        return request, 0

    def transfer(self):
        request, have = self.request()
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise
            if error.headers.get("Content-Range", "") == f"bytes */{have}":
                return  # all of it was there already
            os.truncate(self.part, 0)
            raise ConnectionError("the server has less than what is here")
        with response:
            start = 0
            if response.status == 206:
                match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
                start = int(match[1]) if match else -1
                if start != have:
                    os.truncate(self.part, 0)
                    raise ConnectionError("the server sent another range than it was asked for")
            self.receive(response, start)

    def receive(self, response, start):
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else 0
        free = shutil.disk_usage(self.part.parent).free
        if total - start > free:
            raise Failure(f"{self.part.parent}: {total - start} bytes are to come, {free} are "
                          "free; free space there or give another folder with --to")
        tag = response.headers.get("ETag", "")
        if not tag or tag.startswith("W/"):
            tag = response.headers.get("Last-Modified", "")
        self.tag_file.write_text(tag)
        with open(self.part, "r+b") as out:
            out.truncate(start)
            out.seek(start)
            while block := response.read(CHUNK):
                out.write(block)
                self.progress.show(self.part.name.removesuffix(".part"), out.tell(), total)
            out.flush()
            os.fsync(out.fileno())
            if total and out.tell() != total:
                raise ConnectionError(f"cut off after {out.tell()} of {total} bytes")
