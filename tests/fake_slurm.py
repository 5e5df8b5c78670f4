"""A stand-in for Slurm's commands, named by the first argument; jobs start when it is asked.

The folder FAKE_SLURM holds a file for each job. Enough for the plugins; the real one is tried by
``make test-slurm``.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ["FAKE_SLURM"])


def sbatch(arguments):
    """Take a job into the queue; those whose name ends with REFUSE are refused."""
    options = dict(a.lstrip("-").partition("=")[::2] for a in arguments if a.startswith("--"))
    if options["job-name"].endswith(os.environ.get("REFUSE", "nothing")):
        sys.exit("sbatch: error: Requested node configuration is not available")
    number = len(list(FOLDER.glob("*.json"))) + 1
    job = {"name": options["job-name"], "script": arguments[-1], "held": "hold" in options}
    after = options.get("dependency", "").removeprefix("afterok:")
    job |= {"after": [int(n) for n in after.split(":") if n], "options": options, "pid": 0}
    write(number, job)
    print(number)


def squeue(_):
    """Start what can start, and list what has not ended."""
    jobs = {int(p.stem): json.loads(p.read_text()) for p in FOLDER.glob("*.json")}
    ended = {int(p.stem): p.read_text().strip() for p in FOLDER.glob("*.rc")}
    for number, job in sorted(jobs.items()):
        if number in ended or job["pid"] or job["held"]:
            continue
        if any(ended.get(n, "0") != "0" for n in job["after"]):
            ended[number] = "cancelled"
            (FOLDER / f"{number}.rc").write_text("cancelled")
        elif all(n in ended for n in job["after"]):
            command = f"bash {job['script']}; echo $? > {FOLDER}/{number}.rc"
            with open(FOLDER / f"{number}.log", "w") as log:
                child = subprocess.Popen(
                    ["bash", "-c", command], stdout=log, stderr=log, process_group=0
                )
            write(number, job | {"pid": child.pid})
            job["pid"] = child.pid
    for number, job in sorted(jobs.items()):
        if number not in ended:
            print(f"{number}|{'RUNNING' if job['pid'] else 'PENDING'}|None|{job['name']}")


def scancel(numbers):
    """Stop jobs."""
    for number in [n for n in numbers if n.isdigit() and not (FOLDER / f"{n}.rc").exists()]:
        job = json.loads((FOLDER / f"{number}.json").read_text())
        (FOLDER / f"{number}.rc").write_text("cancelled")
        if job["pid"]:
            os.killpg(job["pid"], signal.SIGKILL)


def scontrol(arguments):
    """Release a job."""
    number = int(arguments[-1])
    job = json.loads((FOLDER / f"{number}.json").read_text())
    write(number, job | {"held": False})


def write(number, job):
    """Write the file of a job, complete or not at all."""
    path = FOLDER / f"{number}.json"
    path.with_suffix(".new").write_text(json.dumps(job))
    path.with_suffix(".new").rename(path)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2:])
