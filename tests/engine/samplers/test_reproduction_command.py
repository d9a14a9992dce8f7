"""A drawing's parameters as the command that draws it again."""

import math

from engine.samplers.records import reproduction_command


def test_what_is_usual_or_unknown_is_left_out():
    row = {"concept": 7, "method": "energy-guidance", "steps": 25, "strength": 0.2, "cap": math.nan, "seed": 0}
    row |= {"until": None, "gradient": "eps", "zeta": math.nan}
    assert reproduction_command(row) == "python -m precompute sample ATLAS --concept 7 --out DIR"


def test_a_weighted_set_and_numbers_to_the_last_digit():
    parameters = {
        "concept": 7, "others": [3], "weights": [1.0, -0.5], "strength": 0.1 + 0.2, "states": 48.0, "match": True,
    }  # fmt: skip
    words = reproduction_command(parameters, "my atlas", "out")
    assert words.startswith("python -m precompute sample 'my atlas' --concept 7 --concept 3 --weight 1.0 --weight -0.5")
    assert words.endswith("--strength 0.30000000000000004 --states 48 --out out")


def test_an_older_drawing_is_drawn_again_by_its_method_s_present_name():
    assert "--method" not in reproduction_command({"concept": 7, "method": "energydps"})
    assert "--method energy-guidance-light" in reproduction_command({"concept": 7, "method": "energydps-light"})
    row = {"concept": 7, "method": "energydps", "gradient": "raw", "zeta": 0.1}
    assert "--method energydps --zeta 0.1" in reproduction_command(row)
    assert "--gradient unit" in reproduction_command(row | {"gradient": "unit", "zeta": None})
