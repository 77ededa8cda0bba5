"""Adversaries: clients of a simulation that attack the federation, whatever its strategy.

A fixed share of the clients attacks in every round (`members`). What such a client sends instead of its honest update
is one frozen value with the method ``forge`` (`alone`, `colluding`), what it does to its training data another
(`poisoning`); `registry` names them. `mod` puts them between the client's handler and what packs its replies.

Colluders know what they could tell each other: the honest updates of those of them that are at work in the round. So
that nothing has to be exchanged, each process trains the honest updates of all of them, once a round; `briefing` says
in each request who they are. So an attack has the same bits whatever the engine, the workers and the packing.
"""
