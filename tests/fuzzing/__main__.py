"""``python -m fuzzing TARGET SECONDS`` (in ``tests``): a run that coverage guides, by atheris.

What it finds to reach new code it leaves in a directory that it names. ``--keep DIRECTORY`` takes over into the corpus
what of that reaches code that the corpus does not, made as short as that goes. ``--again INPUT`` runs one input, in
base64, and with ``--keep`` takes it over too.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
from pathlib import Path

PLACE = Path(__file__).parent
LONGEST = 2048


def fuzz(name: str, seconds: int) -> int:
    try:
        import atheris
    except ImportError:
        print("atheris is not there, and nothing else is guided by coverage: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["netmsg"]):
        from .targets import TARGETS
    found = tempfile.mkdtemp(prefix=f"netmsg-fuzzing-{name}-")
    print(f"what reaches new code goes to {found}: python -m fuzzing {name} --keep {found}", flush=True)
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-artifact_prefix={found}/",
                   found, str(PLACE / "corpus" / name)], TARGETS[name].function)
    atheris.Fuzz()  # ends the process
    return 0


def again(name: str, encoded: str, keep: bool) -> int:
    from .driving import CORPUS, Failure, name_of
    from .targets import TARGETS
    data = base64.b64decode(encoded)
    if keep:
        (CORPUS / name / name_of(data)).write_bytes(data)
    try:
        TARGETS[name].function(data)
    except Exception as error:
        print(Failure(name, data, error))
        return 1
    print("all holds")
    return 0


def keep(name: str, directory: Path) -> int:
    from .keeping import take_over
    for path in take_over(name, [path.read_bytes() for path in sorted(directory.iterdir())]):
        print(path)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=sorted(path.name for path in (PLACE / "corpus").iterdir()))
    parser.add_argument("seconds", type=int, nargs="?", default=60)
    parser.add_argument("--again", metavar="INPUT")
    parser.add_argument("--keep", metavar="DIRECTORY", nargs="?", const="")
    options = parser.parse_args()
    if options.again is not None:
        return again(options.target, options.again, options.keep is not None)
    if options.keep:
        return keep(options.target, Path(options.keep))
    return fuzz(options.target, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
