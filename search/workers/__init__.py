"""Workers: who measures, in this process, in others on this machine, or on a Ray cluster.

One process, the driver, holds the study: it lets the strategy propose, tells results and keeps
scores. Workers hold one model each and nothing else, so that one that dies loses only what it was
measuring, which is given to another.
"""
