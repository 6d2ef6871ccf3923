"""The judge of model files: a process of its own, since a model file can kill whoever runs it.

``python -m homeostat_registry.admission`` waits on a socket at its standard input. For each file it
forks a child that jails itself, loads and tries the model, and says what it found.
"""
