"""The backends of guests' disks, independent of the controller.

A disk has `sectors` of 512 bytes, `read_only`, `identity` (20 bytes), and

    transfer(sector, parts, write, done)   move [(hpa, bytes), ...], in all whole sectors; done(ok) at once or later
    flush(done)                            make all ended writes durable; done(ok)
    quick(sector, buffers, count, write, skip)   a fast transfer() for buffers of a virtqueue's chain (an address), from
                                           byte `skip` on, as much as one step may take. Returns bytes; -1: transfer()
                                           has to do it; or UNDER_WAY. write: 1, or 2 for a flush if it is not `kept`.
                                           None: the disk has no fast path
    ended(ok)                              set by the user: called when a transfer that was UNDER_WAY has ended. Until
                                           then the buffers stay as they are, and quick() is not called
    kept                                   writes are durable at once: a flush has nothing to do
    words(sector, words, sectors, write, done)   transfer() of whole buffers of a chain, three words each; None: use
                                           transfer()
    cancel()                               drop all requests: after this returns, none accesses memory
    forget()                               the guest has been switched off: drop scratch data
    close()
    save(), load(saved)                    the disk's own data, as plain data: writes to "scratch", not the image

The caller has checked that the sectors exist.
"""

from micropython import const

SECTOR = const(512)
UNDER_WAY = const(-2)  # result of quick(): ended() will be called
