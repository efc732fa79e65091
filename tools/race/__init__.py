"""`./dev race`: operations, cancels and closes at random, and everything about each of them checked.

The parts: `check` has what is believed about one operation and the memory around it, and what watches the
engine from outside; `actors` and `sockets` know one kind of file each, what can be done with it, and how to
account for every byte and connection; `rounds` plays them at random, by one thread or by several; `handover`
looks for requests that are forgotten when the leading thread leaves; `threads` has many threads with blocking
verbs and cancel scopes, and `lanes` and `owned` what they wait on; `tasks` has many tasks of one loop with
awaited verbs, `worlds` and `world_trio` how each kind of loop waits, cancels and fails, and `awaited` and
`owned_awaited` the files.

The unit is a round: one engine, opened and closed, and a few hundred to a few thousand operations. What a
round does is drawn from (seed, scenario, engine, threads, round) and from nothing that happens in it. So a
round by one thread can be played again exactly, as far as the kernel's own timing allows; with several
threads the plan of each is the same, and the schedule may differ.
"""
