"""Labels of concepts: from captions, from a reader of images, from a text tower or a person, and how well they predict.

`command.py` is the command `label`; `captions.py`, `readers.py` and `zero_shot.py` make and score labels; `check.py`
holds the scores against a known truth.
"""
