"""Corpora that are no folders: tables of addresses and data sets of Hugging Face `datasets`."""
