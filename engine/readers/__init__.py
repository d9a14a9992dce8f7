"""Readers of images: a vision-language model behind an endpoint or on this machine answers questions about images.

`loading.load_reader` makes one, `base` says what a question and an answer are, `asking` asks within limits and keeps
every answer (`cache`) so that none is paid twice.
"""
