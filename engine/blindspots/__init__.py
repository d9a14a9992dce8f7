"""From sparse codes to blindspots: energies, delta with its intervals, significance, co-occurrence and words.

Pure functions on numpy arrays and scipy sparse matrices (DESIGN section 4); nothing here reads or writes a file.
"""
