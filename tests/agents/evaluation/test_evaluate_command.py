"""``ral evaluate``: what may be compared, and what is printed and written."""

from __future__ import annotations

import json

from ral_env import bundle, cli


def test_bundles_of_one_vqvae_are_rows_of_one_table(tmp_path, capsys):
    out = tmp_path / "made" / "figures.json"
    options = ["--count", "40", "--judges", "0", "--temperatures", "[]", "--out", str(out)]
    assert cli.main(["evaluate", "RALDigits-v0", "digits", *options]) == 0
    printed = capsys.readouterr().out
    lines = printed.split("\n\n")[1].splitlines()
    assert lines[-1].split("|")[2:] == lines[-2].split("|")[2:], "one bundle by two names"
    assert len({len(line) for line in lines}) == 1 and "forward NLL" in lines[0]
    assert "For CMMD: put clip-vit" in printed
    made = bundle.load("digits")
    assert made.digest is not None and made.edition == f"digits {made.digest[:12]}"
    assert printed.splitlines()[0].endswith(
        f". RALDigits-v0: bundle {made.edition}; digits: bundle {made.edition}"
    )
    written = json.loads(out.read_text())
    assert written["editions"] == {"RALDigits-v0": made.edition, "digits": made.edition}
    rows = written["rows"]
    assert list(rows)[1:] == ["RALDigits-v0", "digits"] and rows["digits"]["fd"] > 0


def test_judges_stand_beside_their_floor_and_their_power(tmp_path, capsys):
    out = tmp_path / "figures.json"
    options = ["--count", "40", "--judges", "2", "--judge_steps", "2", "--temperatures", "[]"]
    assert cli.main(["evaluate", "digits", *options, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "judge AUC" in printed and "Judges do not tell reals with 2%" in printed
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == [
        "real, 40 of the training set", "real, 2% of codes replaced", "digits",
    ]  # fmt: skip
    assert all(0 <= row["judge_auc"] <= 1 for row in rows.values())


def test_the_frontier_is_a_table_and_a_picture(tmp_path, capsys):
    out, picture = tmp_path / "figures.json", tmp_path / "made" / "frontier.png"
    options = ["--count", "40", "--judges", "0", "--temperatures", "[1.0, 0.8]"]
    options += ["--out", str(out), "--picture", str(picture)]
    assert cli.main(["evaluate", "RALDigits-v0", "digits", *options]) == 0
    printed = capsys.readouterr().out
    assert "there is no tuning split" in printed and "temperatures 1, 0.8" in printed
    assert "Area of digits less that of RALDigits-v0: +0.000 [+0.000, +0.000]" in printed
    frontiers = json.loads(out.read_text())["frontiers"]
    assert [p["temperature"] for p in frontiers["digits"]["points"]] == [1.0, 0.8]
    assert picture.stat().st_size > 10_000


def test_bundles_of_other_codes_are_not_compared(capsys):
    assert cli.main(["evaluate", "digits", "faces32"]) == 1
    assert "another VQ-VAE" in capsys.readouterr().err
    assert cli.main(["evaluate", "digits", "--count", "1"]) == 1
    assert "expected a number in [20, inf)" in capsys.readouterr().err
    assert cli.main(["evaluate", "nowhere"]) == 1
    assert "no bundle 'nowhere'" in capsys.readouterr().err
