//! Rung 4: `sendfile`. The socket is given the pages of the file's cache.
//!
//! A block: no copy by the processor, 1 call, 2 mode switches. What is written into the file before the card
//! has read it, goes out. A call makes one datagram, too; some kernels copy then, which counts as 1 copy.

use rustix::fs::sendfile;

use super::super::Carrier::{Dma, Reference};
use super::super::Place::{Card, PageCache, Socket};
use super::super::by_reference::{DATAGRAMS, tried};
use super::super::{Job, Kind, Rung, Stopped, Why, unsupported};

pub const RUNG: Rung = Rung {
    number: 4,
    name: "sendfile",
    kind: Kind::Send,
    over: super::BOTH,
    hops: &[Dma.to(PageCache), Reference.to(Socket), Dma.to(Card)],
    run,
    missing: tried,
};

fn run(job: &mut Job<'_>) -> Result<(), Stopped> {
    let sink = &mut job.sink;
    let copies = sink.is_datagrams() && !*DATAGRAMS;
    while let Some(most) = sink.room()? {
        let sent = sink.call("sendfile", |socket| sendfile(socket, job.file, None, most));
        let sent = sent.map_err(|stopped| stopped.or_missing(&unsupported::SPLICE_FROM_FILE))?;
        if sent == 0 {
            return Err(sink.stopped(Why::Shrunk));
        }
        sink.moved(sent);
        sink.copies(if copies { sent } else { 0 });
    }
    Ok(())
}
