"""Studies of how a concept is drawn: strengths, levels of activation, single neurons, rival methods, a second task.

Each study computes a table, a figure and a grid of images from an atlas (`sweep`, `levels`, `neurons`, `methods`,
`injection`); `commands` is their command line.
"""
