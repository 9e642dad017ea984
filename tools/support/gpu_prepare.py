"""Gathers the sources and the libraries they need for a machine that has a GPU and no network."""
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

HEADERS = ["fmt", "nlohmann", "CLI", "hwy", "gtest", "zlib.h", "zconf.h", "xxhash.h"]
LIBRARIES = ["z", "xxhash", "hwy", "gtest", "gtest_main"]


class Missing(Exception):
    """Something that tools/setup installs is not there."""


def library_file(name):
    """The library as the compiler finds it, the static one where there is one; None without."""
    for ending in ("a", "so"):
        found = subprocess.run(["g++", f"-print-file-name=lib{name}.{ending}"], capture_output=True,
                               text=True, check=True).stdout.strip()
        if os.path.isabs(found) and Path(found).exists():
            return Path(found)
    return None


def copy_library(name, folder):
    found = library_file(name)
    if found is None:
        raise Missing(f"lib{name} is not installed")
    shutil.copy2(found.resolve(), folder / found.name)
    if found.suffix == ".so":  # what programs look for is its soname
        table = subprocess.run(["readelf", "-d", str(found)], capture_output=True, text=True, check=True).stdout
        soname = re.search(r"\(SONAME\).*\[(.*)\]", table)
        if soname and soname[1] != found.name:
            shutil.copy2(found.resolve(), folder / soname[1])


def copy_header(name, folder):
    source = Path("/usr/include") / name
    if not source.exists():
        raise Missing(f"{source} is not there")
    (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)


def git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


def prepare(root, folder, archive):
    """Copies the sources below `root`, and what they need of this machine, into an empty folder."""
    for part in ("source", "dependencies/include", "dependencies/lib"):
        (folder / part).mkdir(parents=True)
    for name in git(root, "ls-files", "-z").split("\0")[:-1]:
        to = folder / "source" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if (root / name).exists():
            shutil.copy2(root / name, to)
    for name in HEADERS:
        copy_header(name, folder / "dependencies/include")
    for name in LIBRARIES:
        copy_library(name, folder / "dependencies/lib")
    dirty = bool(git(root, "status", "--porcelain", "--untracked-files=no"))
    facts = {"commit": git(root, "rev-parse", "HEAD").strip(), "dirty": dirty}
    (folder / "prepared.json").write_text(json.dumps(facts, indent=1) + "\n")
    if archive:
        shutil.make_archive(str(folder), "gztar", folder.parent, folder.name)
    print(f"{folder}: sources and dependencies. On the machine with the GPU: "
          f"{folder.name}/source/tools/gpu-check")
