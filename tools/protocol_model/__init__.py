"""The protocol (fsdm/PROTOCOL.md) as three small models, each searched to the last state.

| module | what |
|---|---|
| `search` | visits every state; safety in each, and that every fair run settles |
| `asking` | two writers, careful and careless, and the reconciler: `markers`, `writers`, `judging`, `removing` |
| | and how a want is withdrawn, and that of a quarantined chunk comes back: `withdrawing`, `renewing` |
| `acquiring` | two waiters for a registered chunk, its fetch, its eviction, and the reconciler |
| `holding` | two readers, their forks, and the reconciler: `directories`, `keeping` |
| | and how bytes change, are read for who asks for that, and go out of service: `inspecting` |
| `check` | the bounds; the protocol must hold in them, and each wrong variant must fail |

What is shown, for one id, with crashes between any two steps and a clock that ties:
- a directory does not leave while a ref, or a fork of its process, holds it; what is available is complete; a ref is
  given only of a chunk that was available at some moment since its lock;
- no marker that is newer than the judged one is removed, unless what it asks for is so;
- once the writers rest and refs are let go of, what the later intent asks for is so, and stays so. The later intent is
  the one that was placed last. A careful call counts from its end, and overrules what came without the lock while it
  ran. Where a want and a delete of the same time are met together for the first time, the want counts as the later.
  Of a careless want and a careless delete that both come while a marker is being removed, either may count as it; and
  a careless marker that nothing on the disk tells from an earlier one (the number of its inode was given away again
  within the same tick, and its text is the same) may count as that one;
- of want, register and delete the last wins: what was registered last stays registered, and its copy, if there is one,
  may be evicted; what was wanted last is here, and may not; what was deleted last is neither here nor registered. A
  registration that is tied with another intent keeps the data. A careful want leaves a registration that comes amid it,
  and a careless want that comes, and is carried out, amid a careful registration counts as the later one;
- who waits for a registered chunk gets it, or the outcome of an attempt that had not failed before; once nobody waits
  any more, also after SIGKILL, no fetch runs and no marker is left; what is published for who waits is not evicted
  before they have it, and what is held is not at all;
- what is damaged when somebody asks for it to be verified is not there in the end, unless a delete came in between and
  was overruled: it goes out of service where it stands, and leaves as any directory does. What is right is never
  quarantined;
- the want of a quarantined chunk comes back. That loses no marker of anybody, and wins over none: no other want, no
  delete that comes before it, at the same time or later, and no withdrawal that comes after it. (What is withdrawn
  before it, or before the next reconciler has finished what a crash cut off, comes back.)

The bounds, in `check`, are on intents for each writer, crashes of the reconciler, ticks of the clock, changes of mind,
damages and requests to verify. Writers and readers are killed at will, and readers go on for ever.

Left out: a registration that is withdrawn, one that cannot be read; power failures and two reconcilers at once, more
than one id, fetches that fail or are cut, room, a delete that is withdrawn, a want that is while another marker is on
its way out, the audit and the scrub (they ask as somebody does), a chunk that never had a WANT, markers that are no
files, rewriting in place at the one instant that PROTOCOL.md names, time limits on the lock of intents. A tick is of
whatever gives a file its times: 4 ms of a kernel, or the two seconds of a file system.
"""
