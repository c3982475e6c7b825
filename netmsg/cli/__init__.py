"""The commands of ``python -m netmsg``, one a module.

A command's module has ``add_to(commands)``, which describes it to the parser and sets ``run``, a function of the parsed
arguments that does the command and returns the exit status.
"""
