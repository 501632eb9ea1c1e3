//! The rungs, each in a file of its own, in their order.

mod af_xdp;
mod copy_file_range;
mod copy_mmap;
mod copy_read_write;
mod io_copy;
mod io_uring;
mod io_uring_splice;
mod log_read_write;
mod mmap_write;
mod packet_tx_ring;
mod pinwire;
mod read_write;
mod reflink;
mod relay_read_write;
mod relay_splice;
mod sendfile;
mod splice;
mod tee;
mod zerocopy;

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with};

use super::bounds::NAP;
use super::{Protocol, Rung, Sink, Stopped, Why, retry, unsupported};

/// Returns `None`: the rung can be had wherever the kernel is ours.
fn always() -> Option<String> {
    None
}

const BOTH: &[Protocol] = &[Protocol::Tcp, Protocol::Udp];

/// All of them, from the bottom.
pub const RUNGS: &[Rung] = &[
    read_write::RUNG,
    mmap_write::RUNG,
    io_copy::RUNG,
    sendfile::RUNG,
    splice::RUNG,
    relay_read_write::RUNG,
    relay_splice::RUNG,
    log_read_write::RUNG,
    tee::RUNG,
    copy_read_write::RUNG,
    copy_mmap::RUNG,
    copy_file_range::RUNG,
    reflink::RUNG,
    zerocopy::RUNG,
    io_uring::FIXED,
    io_uring::ZEROCOPY,
    io_uring_splice::RUNG,
    packet_tx_ring::RUNG,
    af_xdp::RUNG,
    pinwire::COPIED,
    pinwire::PAGE_CACHE,
];

/// A pipe: its end, and where it is filled.
fn pipe(sink: &Sink<'_>) -> Result<(OwnedFd, OwnedFd), Stopped> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|errno| sink.failed("pipe", errno))
}

/// Moves what has come by a stream into a pipe, at most `len` bytes of it; gives how many.
fn splice_in(
    sink: &Sink<'_>,
    from: &TcpStream,
    fill: &OwnedFd,
    len: usize,
) -> Result<usize, Stopped> {
    let none = SpliceFlags::empty();
    let came = sink.take("splice", from, |from| {
        rustix::pipe::splice(from, None, fill, None, len, none)
    });
    came.map_err(|stopped| stopped.or_missing(&unsupported::SPLICE_SOCKET))
}

/// Moves what is in a pipe to the socket, at most `len` bytes of it; gives how many.
fn splice_out(sink: &mut Sink<'_>, pipe: &OwnedFd, len: usize) -> Result<usize, Stopped> {
    let none = SpliceFlags::empty();
    let went = sink.call("splice", |socket| {
        rustix::pipe::splice(pipe, None, socket, None, len, none)
    });
    let went = went.map_err(|stopped| stopped.or_missing(&unsupported::SPLICE_SOCKET))?;
    if went == 0 {
        // Who goes on until all has gone would do so for ever.
        return Err(sink.failed(
            "splice",
            std::io::Error::from(std::io::ErrorKind::WriteZero),
        ));
    }
    sink.moved(went);
    Ok(went)
}

/// The stream that a job's bytes come from.
fn stream<'a>(from: &'a Option<TcpStream>, sink: &Sink<'_>) -> Result<&'a TcpStream, Stopped> {
    let missing = || sink.stopped(Why::Missing("no stream to relay".to_owned()));
    let from = from.as_ref().ok_or_else(missing)?;
    // A call that waits returns now and then, so that Ctrl-C is heard.
    let limited = from.set_read_timeout(Some(NAP));
    limited.map_err(|error| sink.failed("SO_RCVTIMEO", error))?;
    Ok(from)
}

/// The file that a job's bytes go into.
fn file<'a>(into: Option<&'a File>, sink: &Sink<'_>) -> Result<&'a File, Stopped> {
    into.ok_or_else(|| sink.stopped(Why::Missing("no file to write to".to_owned())))
}

/// Reads what comes next in a job's file; gives how much.
fn read(sink: &Sink<'_>, file: &File, block: &mut [u8]) -> Result<usize, Stopped> {
    match retry(|| rustix::io::read(file, &mut *block)) {
        Ok(0) => Err(sink.stopped(Why::Shrunk)),
        read => read.map_err(|errno| sink.failed("read", errno)),
    }
}

/// Writes some of `bytes` into a file; gives how many.
fn write(sink: &Sink<'_>, file: &File, bytes: &[u8]) -> Result<usize, Stopped> {
    let written = retry(|| some(rustix::io::write(file, bytes)));
    written.map_err(|errno| sink.failed("write into the file", errno))
}

/// A file that takes nothing, and says nothing of it, would be asked for ever.
fn some(taken: rustix::io::Result<usize>) -> rustix::io::Result<usize> {
    match taken {
        Ok(0) => Err(Errno::IO),
        taken => taken,
    }
}
