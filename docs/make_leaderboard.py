"""Write docs/leaderboard.md and its figures: ``python docs/make_leaderboard.py``.

They are made of benchmarks/results. A test compares the page with the committed one.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.leaderboard import page
from benchmarks.leaderboard.results import Results

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"

TITLE = """\
<!-- Made by docs/make_leaderboard.py of benchmarks/results: change those, then run it again. -->

# Leaderboard
"""

FIGURE = """\
![{env}](leaderboard/{env}.png)
*{env}: a dot a seed, nearest to real canvases on top; entries with diamonds learn nothing.*
"""

HEAD = """\
Every algorithm gets the same processor seconds, on one thread, whatever it trains a discriminator
with included; all are measured alike: `ral bench algorithms`. Entries learn from the train split,
the temperature that priors are sampled at is chosen on `tuning` ([how](measures.md#the-frontier)),
figures are those of the `test` split. *score* is the mean by the bundle's discriminator (real is
high), *judge AUC* how well fresh classifiers tell samples from reals (0.5: not at all), *canvases*
how many were sampled in training. [measures.md](measures.md) says what the other columns are.

    ral bench algorithms --trials true --out benchmarks/results  # three settings each, on `tuning`
    ral bench algorithms --seeds 5 --out benchmarks/results  # goes on where it was cut
    ral bench algorithms --entries '["rounds"]' --out benchmarks/results  # any row again
"""

SUBMIT = """\
## Add a row

Canvases that anyone's model wrote, or an agent, are measured on the same terms:

    ral bench submit --env RALMNIST-v0 --name mine --samples samples.npy
    ral bench submit --env RALMNIST-v0 --name mine --agent my_agent:act

`samples.npy` has integers (N, 64), N at least 3,000 and 1,000 more for judges than samples are
measured. An agent is a function that is asked for each code of a batch of canvases:

```python
import numpy as np


def act(observations, rng):
    \"\"\"int16 (B, 64), 64 where a cell is empty, and a numpy Generator, to B codes.\"\"\"
    return rng.integers(0, 64, len(observations))
```

## What the rows are

"""


def make(results: Path = RESULTS) -> str:
    """The page of all results in a folder: their figures first, then the terms and the tables."""
    figures = [FIGURE.format(env=file.stem) for file in environments(results)]
    parts = [TITLE, *figures, HEAD]
    for file in environments(results):
        parts += [page.text(file.stem, Results(file).records), ""]
    return "\n".join([*parts, SUBMIT + page.entries_text()]) + "\n"


def environments(results: Path) -> list[Path]:
    """The files of runs, by name; those of trials are not among them."""
    return [f for f in sorted(results.glob("*.csv")) if not f.stem.startswith("trials-")]


if __name__ == "__main__":
    (DOCS / "leaderboard.md").write_text(make(), encoding="utf-8")
    for file in environments(RESULTS):
        page.save_figure(
            Results(file).records, file.stem, DOCS / "leaderboard" / f"{file.stem}.png"
        )
