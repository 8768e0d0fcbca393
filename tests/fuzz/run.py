"""Runs the fuzzer for a bounded time on a corpus made of the protocol's vectors."""
import argparse
import pathlib
import random
import subprocess
import sys
import tempfile

INPUT_BYTES_MAX = 4096


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--vectors", required=True, type=pathlib.Path)
    parser.add_argument("--seconds", required=True, type=int)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="heddle-fuzz-") as folder:
        corpus = pathlib.Path(folder, "corpus")
        corpus.mkdir()
        seeds = 0
        for file in sorted(options.vectors.glob("*.txt")):
            for line in file.read_text().splitlines():
                if line and not line.startswith("#"):
                    name, _side, frame, _text = line.split(" | ", 3)
                    (corpus / f"{file.stem}-{name}").write_bytes(bytes.fromhex(frame))
                    seeds += 1
        print(f"{seeds} vectors in the corpus", flush=True)
        done = subprocess.run([options.binary, f"-max_total_time={options.seconds}",
                               f"-seed={options.seed}", f"-max_len={INPUT_BYTES_MAX}",
                               f"-artifact_prefix={folder}/", "-print_final_stats=1",
                               "-verbosity=0", str(corpus)], check=False)
        for crash in pathlib.Path(folder).glob("crash-*"):
            print(f"crashed on {crash.read_bytes().hex()}")
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
