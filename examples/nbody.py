"""Charged particles: simulate them, train EGNN, compare with standing still.

python examples/nbody.py [section.key=value ...]
"""

import subprocess
import sys


def main(settings: list[str], folder: str = "runs/charges") -> None:
    equiform = [sys.executable, "-m", "equiform"]
    run = ["recipe", "run", "nbody-egnn", "--scaled", "-o", folder, "training.max_minutes=2", *settings]
    subprocess.run([*equiform, *run], check=True)
    subprocess.run([*equiform, "evaluate", folder, "nbody-egnn"], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
