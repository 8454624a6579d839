import subprocess
import sys


def test_the_commands_load_without_torch() -> None:
    code = (
        "import sys; import keywarp.export.command, keywarp.training.command; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnx', 'av', 'cv2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_torch_a_sentence_says_what_to_install() -> None:
    code = (
        "import sys, typer; sys.modules['torch'] = None; from keywarp.training.command import train; "
        "sys.argv = ['train', 'street.toml']; typer.run(train)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Training needs torch: pip install 'keywarp[train]'")
