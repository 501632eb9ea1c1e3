//! Rungs 11 and 12, our own driver: the card is given each datagram where it is, past the kernel.
//!
//! Copied: the kernel reads the payload into a pinned buffer, 1 copy and 1 call a datagram. From the page
//! cache: the card reads it there, no copy and no call; 1 call for each part of the file that is pinned.
//! Both: a call where the far end must be heard, and where there is nothing to do but to sleep.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{SeekFrom, seek};

use super::super::Carrier::{Cpu, Dma};
use super::super::Place::{Card, PageCache, Pinned};
use super::super::bounds::NAP;
use super::super::{Job, Kind, Protocol, Rung, Sink, Stopped, Why};
use crate::net::{CopySource, FileSource, Next, Source, UdpFlow};
use crate::nic::{Frame, Nic};

/// Frames a doorbell, at most.
const BATCH: usize = 64;
/// Datagrams under way at once: a ring, and a batch.
const IN_FLIGHT: usize = 256 + BATCH;

pub const COPIED: Rung = Rung {
    number: 11,
    name: "pinwire, copied",
    kind: Kind::Send,
    over: &[Protocol::Udp],
    hops: &[Dma.to(PageCache), Cpu.to(Pinned), Dma.to(Card)],
    run: copied,
    missing: super::always,
};

pub const PAGE_CACHE: Rung = Rung {
    number: 12,
    name: "pinwire, page cache",
    kind: Kind::Send,
    over: &[Protocol::Udp],
    hops: &[Dma.to(PageCache), Dma.to(Card)],
    run: page_cache,
    missing: super::always,
};

fn copied(job: &mut Job<'_>) -> Result<(), Stopped> {
    let (bytes, payload) = (bytes(job)?, job.sink.most());
    let card = job
        .card
        .as_ref()
        .ok_or_else(|| job.sink.stopped(no_card()))?;
    let file = (job.file, Path::new("the file"));
    let source = CopySource::new(card.nic, file, bytes, card.flow, payload, IN_FLIGHT);
    let mut source = source.map_err(|error| job.sink.stopped(error.into()))?;
    let sent = send(job, &mut source);
    job.sink.copies(source.by_cpu().payload as usize);
    sent
}

fn page_cache(job: &mut Job<'_>) -> Result<(), Stopped> {
    let (bytes, payload) = (bytes(job)?, job.sink.most());
    let card = job
        .card
        .as_ref()
        .ok_or_else(|| job.sink.stopped(no_card()))?;
    let file = (job.file, Path::new("the file"));
    let source = FileSource::new(card.nic, file, bytes, card.flow, payload, IN_FLIGHT);
    let mut source = source.map_err(|error| job.sink.stopped(error.into()))?;
    if card.prove {
        let denied = source.deny_cpu();
        denied.map_err(|error| job.sink.stopped(error.into()))?;
    }
    send(job, &mut source)?;
    let whole = source.check_length();
    whole.map_err(|error| job.sink.stopped(error.into()))
}

/// Returns the range of the job's bytes in the file, from its position on, as far as they are there now.
fn bytes(job: &Job<'_>) -> Result<Range<u64>, Stopped> {
    let (begin, len) = (seek(job.file, SeekFrom::Current(0)), job.file.metadata());
    let begin = begin.map_err(|errno| job.sink.failed("lseek", errno))?;
    let len = len.map_err(|error| job.sink.failed("fstat", error))?.len();
    Ok(begin..len.min(begin.saturating_add(job.sink.len())))
}

/// Sends all that `source` has.
fn send(job: &mut Job<'_>, source: &mut dyn Source) -> Result<(), Stopped> {
    let Some(card) = &mut job.card else {
        return Err(job.sink.stopped(no_card()));
    };
    let (nic, sink) = (&mut *card.nic, &mut job.sink);
    let mut batch = Vec::with_capacity(BATCH);
    climb(nic, sink, source, &mut batch).map_err(|stopped| {
        // What the card has not taken has not gone.
        let waiting = batch
            .iter()
            .map(|frame| (frame.len() - UdpFlow::HEADER) as u64);
        Stopped {
            sent: stopped.sent - waiting.sum::<u64>(),
            ..stopped
        }
    })
}

/// Sends as the far end has room; sleeps where there is nothing to do.
fn climb(
    nic: &mut dyn Nic,
    sink: &mut Sink<'_>,
    source: &mut dyn Source,
    batch: &mut Vec<Frame>,
) -> Result<(), Stopped> {
    let mut spent = Vec::with_capacity(IN_FLIGHT);
    let (mut end, mut idle) = (None, None);
    loop {
        let completed = nic.completed(&mut spent);
        let completed = completed.map_err(|error| sink.stopped(error.into()))?;
        while end.is_none() && batch.len() < BATCH {
            // With frames under way there is the card to be looked at, too, so it does not wait here.
            let busy = !batch.is_empty() || nic.in_flight() > 0;
            if busy && !sink.has_room(sink.most() as u64)? {
                break;
            }
            if !busy && sink.room()?.is_none() {
                return Ok(());
            }
            match source.next(spent.pop()) {
                Ok(Next::Frame(frame)) => {
                    sink.moved(frame.len() - UdpFlow::HEADER);
                    batch.push(frame);
                }
                Ok(Next::Wait | Next::NotYet) => break,
                Ok(Next::End) if sink.sent() < sink.len() => end = Some(Err(Why::Shrunk)),
                Ok(Next::End) => end = Some(Ok(())),
                // What came before it leaves first.
                Err(error) => end = Some(Err(error.into())),
            }
        }
        let sent = nic.send(batch);
        let sent = sent.map_err(|error| sink.stopped(error.into()))?;
        if let Some(end) = end.take_if(|_| batch.is_empty() && nic.in_flight() == 0) {
            return end.map_err(|why| sink.stopped(why));
        }
        if completed > 0 || sent > 0 {
            idle = None;
            continue;
        }
        let woken = nic.wait(NAP).and_then(|woken| match woken {
            true => Ok(()),
            false => nic.check(),
        });
        woken.map_err(|error| sink.stopped(error.into()))?;
        sink.go_on(idle.get_or_insert_with(Instant::now))?;
    }
}

fn no_card() -> Why {
    Why::Missing("there is no card of ours: name one".to_owned())
}
