"""``ral push``: share a bundle on the Hugging Face Hub, with a card that shows what it is."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym

import ral_env
from ral_env import bundle as bundles
from ral_env import film
from ral_env.bundle import Bundle
from ral_env.bundle.hub import SCHEME
from ral_env.tables import markdown_table

FILM = "film.gif"
SEED = 0  # of the film


def figures(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers of a manifest's metrics, by dotted names; curves are left out."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from figures(value, f"{prefix}{name}.")
        elif (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        ):
            yield f"{prefix}{name}", value


def card(bundle: Bundle, repository: str, has_film: bool) -> str:
    """The README.md of a repository: metadata with the figures, what the bundle is, how to use it.

    Args:
        bundle: one that was read from a folder.
        repository: OWNER/NAME.
        has_film: whether a film lies beside it.
    """
    from huggingface_hub import EvalResult, ModelCardData

    found = dict(figures(bundle.manifest["metrics"]))
    results = [
        EvalResult(
            task_type="unconditional-image-generation",
            dataset_type="ral-env",
            dataset_name=bundle.dataset,
            metric_type=name,
            metric_value=value,
        )
        for name, value in found.items()
    ]
    name = repository.partition("/")[2]
    data = ModelCardData(
        library_name="ral-env",
        tags=["ral-env", "gymnasium", "reinforcement-learning", "image-generation"],
        model_name=name,
        eval_results=results or None,
    )
    address, layout = f"{SCHEME}{repository}", bundle.layout
    grids = " + ".join(f"{h}x{w}" for h, w in layout.levels)
    picture = f"![the prior paints an image]({FILM})\n\n" if has_film else ""
    rows = [{"figure": key, "value": f"{value:.6g}"} for key, value in found.items()]
    table = markdown_table(rows, ["figure", "value"]) if rows else "None were stored."
    return f"""---
{data.to_yaml().strip()}
---

# {name}

{picture}A bundle of ral-env: all that an environment is made of in which an agent paints an image,
code by code, and a discriminator scores it. Trained on: {bundle.dataset}.

| | |
| --- | --- |
| images | {bundle.image_size} pixels |
| codes | {grids} of {layout.num_codes} |
| edition | {bundle.version or "without a version"}, digest `{bundle.digest}` |
| files | safetensors, JSON and npy; no pickle |

## Use

```sh
pip install 'ral-env[hub]'
ral evaluate {address}
ral film --env RALBundle-v0 --bundle {address}
```

```python
import gymnasium as gym

env = gym.make("ral_env:RALBundle-v0", bundle="{address}")
```

`{address}@COMMIT` names this state for ever. Files are compared with their SHA-256 before use.

## Figures

Those that were measured when it was made, on its own held-out data; NLL in nats.

{table}
"""


def push(name_or_path: str, repository: str, private: bool = False, with_film: bool = True) -> str:
    """Upload a bundle, its card and a film of its prior as one commit.

    Args:
        name_or_path: of a bundle; it is verified first.
        repository: OWNER/NAME; made if it is not there.
        private: whether a new repository is private.
        with_film: whether the prior paints an image for the card; a bundle without priors has none.

    Returns:
        The address of that commit: ``hub:OWNER/NAME@COMMIT``.

    Raises:
        ValueError: if there is no such bundle, or the Hub refuses: without a login, for one.
    """
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi

    bundle = bundles.load(name_or_path)
    assert bundle.path, "a bundle that was loaded has a folder"
    files: dict[str, Path | bytes] = {
        name: bundle.path / name for name in ("manifest.json", *bundle.manifest["files"])
    }
    with_film = with_film and bool(bundle.priors)
    if with_film:
        files[FILM] = _film(bundle)
    files["README.md"] = card(bundle, repository, with_film).encode()
    api = HfApi(library_name="ral-env", library_version=ral_env.__version__)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(name, file) for name, file in files.items()],
            commit_message=f"Bundle {bundle.edition}",
        )
    except (OSError, httpx2.HTTPError) as error:  # of the Hub, or of the connection
        raise ValueError(
            f"{repository!r} was not written: {error}. Log in with `hf auth login`, and look at "
            "the owner's name"
        ) from error
    return f"{SCHEME}{repository}@{commit.oid}"


def _film(bundle: Bundle) -> bytes:
    """A GIF of the prior painting an image."""
    env: Any = gym.make("RALBundle-v0", bundle=bundle, render_mode="rgb_array")
    every = max(1, bundle.layout.length // 64)
    with tempfile.TemporaryDirectory() as folder:
        path = film.save(film.frames(env, SEED, every), Path(folder, FILM), size=192, fps=12)
        env.close()
        return path.read_bytes()


def command(bundle: str, repository: str, private: bool = False, film: bool = True) -> None:
    """Share a bundle on the Hugging Face Hub. Log in before, with `hf auth login`.

    Args:
        bundle: Name or path of the bundle.
        repository: Where it goes, OWNER/NAME. It is made if it is not there.
        private: Whether a new repository is private.
        film: Whether the prior paints an image for the card.
    """
    print(f"it is at {push(bundle, repository, private, film)}")


def main(argv: list[str] | None = None) -> None:
    """Parse the arguments of ``ral push`` and run it."""
    from jsonargparse import auto_cli

    auto_cli(command, args=argv, prog="ral push")


if __name__ == "__main__":
    main()
