"""Score `--keep`: two speakers never heard, 10 s of each enrolled, and whose voice comes out.

python -m bench.keep --data DATA [--model keep]

How is told in `export.kept`, which scores the bundle when it is made, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from export import kept
from rtsep.errors import RtsepError

EXAMPLES = """\
examples:
  python -m bench.keep --data DATA
  python -m bench.keep --data DATA --model my.onnx --json keep.json
"""


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the audio")
    parser.add_argument("--model", default="keep", help="name or path of a bundle; keep")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    try:
        found = kept.measure(arguments.data, arguments.model)
    except RtsepError as error:
        parser.exit(1, f"{error}\n")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{found['model']}: {kept.headline(found)}")


if __name__ == "__main__":
    main()
