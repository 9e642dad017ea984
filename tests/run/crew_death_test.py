"""A process that dies in a crew ends the job, with one message.

usage: crew_death_test.py MPIEXEC PROGRAM
"""

import re
import subprocess
import sys
import time


def main(mpiexec, program):
    run = subprocess.Popen(
        [mpiexec, "-n", "3", "--oversubscribe", "--allow-run-as-root",
         "-x", "ASAN_OPTIONS=detect_leaks=0", program, "die"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, err = run.communicate(timeout=100)
    ended = time.monotonic()
    killed = re.search(r"^killed at ([0-9.]+)$", err, re.MULTILINE)
    assert killed, f"nobody died in a crew:\n{err}"
    seconds = ended - float(killed[1])
    assert run.returncode != 0, err
    errors = [line for line in err.splitlines() if "error:" in line]
    assert len(errors) == 1, err
    for part in ("process 2 of host", "rank 3 on", " in ", "died"):
        assert part in errors[0], f"no '{part}' in: {errors[0]}"
    assert seconds < 5, f"the job ended {seconds:.1f} s after its process"


if __name__ == "__main__":
    main(*sys.argv[1:])
