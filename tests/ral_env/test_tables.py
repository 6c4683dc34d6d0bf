"""Tables are aligned markdown."""

from ral_env.tables import markdown_table


def test_markdown_table_is_aligned_and_blank_where_nothing_is_known():
    rows = [{"row": "MLE", "FD": 12.34567}, {"row": "RAL | x", "FD": None, "n": 3}]
    assert markdown_table(rows, ["row", "FD", "n"]).splitlines() == [
        "| row      |     FD |   n |",
        "| -------- | -----: | --: |",
        "| MLE      | 12.346 |     |",
        "| RAL \\| x |        |   3 |",
    ]


def test_a_heading_may_stand_for_a_columns_name():
    lines = markdown_table([{"row": "MLE", "fd": 1}], ["row", "fd"], {"fd": "FD"}).splitlines()
    assert lines[0] == "| row |  FD |"
