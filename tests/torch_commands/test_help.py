import subprocess
import sys

import pytest

COMMANDS = ("adapt", "complexity", "evaluate", "export", "init", "reproduce", "train")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_imports_no_heavy_package(command: str) -> None:
    code = (
        "import sys; from keywarp.cli.main import main; "
        f"sys.argv = ['keywarp', {command!r}, '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnx', 'openvino', 'cv2', 'matplotlib')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "Example: keywarp " + command in " ".join(done.stdout.split())


def test_the_programs_help_lists_the_commands_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from keywarp.cli.main import main; "
        "sys.argv = ['keywarp', '--help']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    help_text = " ".join(done.stdout.split())
    assert "Repeat an experiment of the paper" in help_text
    assert "Measure a checkpoint" in help_text
    assert "can't run" not in help_text
