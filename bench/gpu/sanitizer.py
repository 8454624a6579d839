"""The kernels under NVIDIA's compute-sanitizer, which finds what results don't show."""

import shutil
import subprocess
import sys

from bench.gpu import detection, images, labels
from bench.gpu.case import Case, FailedError, SkippedError
from bench.gpu.kernels import check_results
from tests.engines.cuda.cases import battery

CHILD = "import sys; from bench.gpu.sanitizer import child; child(sys.argv[1], sys.argv[2])"
ERROR = 9  # exit status of compute-sanitizer if it finds something


def run(case: Case, tool: str) -> None:
    """Run some cases of each kernel under a tool.

    Raises:
        FailedError: If the tool finds something, or doesn't run.
        SkippedError: If compute-sanitizer isn't there.
    """
    command = [sys.executable, "-c", CHILD, str(case.folder), "dry" if case.dry else ""]
    if not case.dry:
        sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
        if sanitizer is None:
            raise SkippedError("no compute-sanitizer (it is part of the CUDA toolkit)")
        command = [sanitizer, "--tool", tool, "--error-exitcode", str(ERROR), "--print-limit", "20", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("=========")]
    case.record(output=found[-40:], summary=found[-1].strip("= ") if found else "")
    if done.returncode:
        tail = " ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
        raise FailedError(f"{tool} ended with status {done.returncode}: {tail}")


def child(folder: str, dry: str) -> None:
    """Run a few cases of each kernel, in the process that the tool watches."""
    from pathlib import Path

    case = Case("kernels-child", Path(folder), bool(dry))
    case.driver.activate()
    check_results(case, battery()[:: 40 if dry else 7])
    case.kernel_driver.activate()
    detection.compare(case, detection.SMALL, frames=2)
    labels.compare(case, labels.SHAPES[:2])
    images.compare(case, images.SIZES[:3])
