"""Breaks real processes at a named instant, and looks at what is left with other eyes.

`shim.c` counts the calls that change files and strikes one of them, `zygote` forks whole
exports from an interpreter that has imported everything, `checker` reads lake and ledger
without the exporter's code, `matrix` names the points and tries them.
"""
