"""Stand-ins for what surrounds idbellen, to show it and to test it: never part of a production set-up.

They speak the real protocols: :mod:`~idbellen.demo.core` is the ID Contact core and a municipality's website,
:mod:`~idbellen.demo.auth` authentication plugins with made-up citizens, :mod:`~idbellen.demo.pbx` a
private Asterisk.
"""
