"""What would make a model cheaper to serve, measured on this machine: `homeostat advise`.

Forms of the champion's file (quantised, halved, compiled) and ways to run it (rows at once,
threads, graph optimisation) are first compared with the original on rows from the ledger, then
timed. Each runs in a process of its own. Needs the extra homeostat[advise].
"""
