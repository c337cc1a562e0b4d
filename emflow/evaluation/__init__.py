"""Pickers and denoisers side by side: the same images, the same matching, one table.

``specimens`` makes the labelled micrographs, ``picking`` and ``denoising`` score what a tool made of them.
Nothing here asks which tool it was: `emflow evaluate` and the scripts in benchmarks/ do.
"""
