//! Rung 8: `send` with MSG_ZEROCOPY, from a mapping of the file: the card reads the file's cache.
//!
//! A block: no copy by the processor, 1 call, 2 mode switches; and a call per 16 blocks that hears which are
//! done. Until then a block may not change: here it is the file's. Where the kernel copies after all
//! (loopback, a card without scatter/gather, a packet filter that looks), it says so, and it counts as 1 copy.

use rustix::io::Errno;

use super::super::Carrier::{Dma, Reference};
use super::super::Place::{Card, PageCache, Socket, User};
use super::super::completions::Completions;
use super::super::mapping::{Mapping, shrunk};
use super::super::{Job, Kind, Rung, Stopped, unsupported};
use crate::paths::errqueue;

pub const RUNG: Rung = Rung {
    number: 8,
    name: "MSG_ZEROCOPY",
    kind: Kind::Send,
    over: super::BOTH,
    hops: &[
        Dma.to(PageCache),
        Reference.to(User),
        Reference.to(Socket),
        Dma.to(Card),
    ],
    run,
    missing: super::always,
};

/// Blocks between two looks into the queue: fewer than the kernel has room to remember (optmem_max).
const LOOK: usize = 16;

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let mapping = Mapping::of(job.file, sink)?;
    let mut calls = Completions::default();
    let asked = sink.call("SO_ZEROCOPY", |socket| errqueue::ask(socket).map(|()| 0));
    asked.map_err(|stopped| stopped.or_missing(&unsupported::ZEROCOPY))?;
    let mut unheard = 0;
    while let Some(most) = mapping.room(sink)? {
        let gone = sink.sent();
        let mut by_copy = false;
        let sent = sink.call("send", |socket| {
            if unheard >= LOOK {
                calls.take(socket)?;
                unheard = 0;
            }
            let flags = if by_copy { 0 } else { libc::MSG_ZEROCOPY };
            match mapping.send(socket, gone, most, flags) {
                // No room to remember another block: it has when one is done. Where none is under way, it
                // never has (RLIMIT_MEMLOCK, optmem_max): then by a copy.
                Err(Errno::NOBUFS) if !by_copy => {
                    by_copy = calls.len() == 0;
                    if !by_copy {
                        calls.wait(socket)?;
                    }
                    Err(Errno::INTR)
                }
                sent => sent,
            }
        });
        let sent = sent.map_err(shrunk)?;
        if by_copy {
            sink.copies(sent);
        } else {
            calls.sent(sent);
            unheard += 1;
        }
        sink.moved(sent);
        sink.copies(calls.copied());
    }
    while calls.len() > 0 {
        sink.call("recvmsg", |socket| calls.wait(socket))?;
    }
    sink.copies(calls.copied());
    Ok(())
}
