"""What a guest's disk consists of, whatever controller it hangs on.

A disk has `sectors` of 512 bytes, `read_only`, `identity` (20 bytes), and

    transfer(sector, parts, write, done)   move [(hpa, bytes), ...], in all whole sectors; done(ok) at once or later
    flush(done)                            what was written is kept; done(ok)
    quick(sector, buffers, count, write, skip)   the same for buffers of a virtqueue's chain (an address), from byte
                                           `skip` on, as much as one step may take: bytes, or -1 where transfer() has
                                           to do it, or UNDER_WAY; None where nothing is that quick. write: 1, or 2
                                           for a flush where it is not `kept`
    ended(ok)                              its user sets it: what quick() has left UNDER_WAY is done. Until then the
                                           buffers stay as they are, and quick() is not called
    kept                                   what is written is kept at once: a flush has nothing to do
    words(sector, words, sectors, write, done)   transfer() of whole buffers of a chain, three words each; None: by
                                           transfer() only
    cancel()                               what is under way moves nothing any more when this returns
    forget()                               the guest is switched off
    close()
    save(), load(saved)                    what it alone has, as plain data: what "scratch" was given, not the image

The caller has checked that the sectors are the disk's.
"""

from micropython import const

SECTOR = const(512)
UNDER_WAY = const(-2)  # quick()
