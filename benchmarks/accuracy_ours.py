"""Equiform as a worker of benchmarks/time_to_accuracy.py: `equiform` with its arguments, on the clock of the comparison.

`python -m benchmarks.accuracy_ours processor|wall ARGUMENTS` of `equiform`. On the processor clock every time that Equiform
measures, that of `training.max_minutes` included, is processor time of the process: other work on the machine then does not
count.
"""

import sys
import time


def main() -> None:
    if sys.argv[1] == "processor":
        time.perf_counter = time.process_time
    from equiform.cli.app import app

    app(sys.argv[2:])


if __name__ == "__main__":
    main()
