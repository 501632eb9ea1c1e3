//! Copies that the kernel made for us: its own count, beside a rung's account.
//!
//! The copying itself is done in routines that may not be probed (all of the kernel's `lib`). So it is
//! counted where they are called: probes (tracefs, kprobe events) sum up for each thread (a hist
//! trigger) what passes. That takes time, so it is done in a run of its own, which is not timed. It is
//! the kernel's copies that are seen: a program's own, and a few that the kernel makes of what it has
//! taken without one (a MSG_ZEROCOPY that it has to copy after all), are not.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::lab::count::syscalls::tracefs;

/// A function of the kernel's, and where the bytes that pass are to be seen.
struct Probe {
    function: &'static str,
    bytes: Bytes,
}

/// The place where a function has a number of bytes.
enum Bytes {
    /// This argument.
    Argument(u8),
    /// The return value, an `int`.
    Int,
    /// The return value, a `ssize_t`.
    Long,
}

const fn given(function: &'static str, bytes: Bytes) -> Probe {
    Probe { function, bytes }
}

/// Functions that copy, and those whose bytes of that pass without a copy. A kernel has not all of them.
const COPIES: [(&[Probe], &[Probe]); 6] = [
    // Out of the page cache: of a file on a disk, on tmpfs. Before Linux 6.5 a splice came this way, too.
    (
        &[
            given("filemap_read", Bytes::Long),
            given("shmem_file_read_iter", Bytes::Long),
        ],
        &[given("generic_file_splice_read", Bytes::Long)],
    ),
    // Into the page cache.
    (&[given("generic_perform_write", Bytes::Long)], &[]),
    // Into a stream's buffer, but for pages that are lent (MSG_ZEROCOPY; splice since Linux 6.5).
    (
        &[given("tcp_sendmsg_locked", Bytes::Int)],
        &[
            given("skb_zerocopy_iter_stream", Bytes::Int),
            given("skb_splice_from_iter", Bytes::Long),
        ],
    ),
    // Into a datagram; into a packet of AF_PACKET's; into one of AF_XDP's.
    (
        &[
            given("ip_generic_getfrag", Bytes::Argument(4)),
            given("skb_copy_datagram_from_iter", Bytes::Argument(4)),
            given("skb_store_bits", Bytes::Argument(4)),
        ],
        &[],
    ),
    // Out of a packet that came in.
    (&[given("skb_copy_datagram_iter", Bytes::Argument(4))], &[]),
    // From one packet into another place, as for a card that cannot gather.
    (
        &[
            given("skb_copy_bits", Bytes::Argument(4)),
            given("skb_copy_and_csum_bits", Bytes::Argument(4)),
        ],
        &[],
    ),
];

/// The sums: one for each thread, by number and name.
const SUM: &str = "hist:keys=common_pid.execname:vals=bytes if bytes > 0";

/// Bytes that a trial copies.
const TRIAL: u64 = 100_000;

/// The probes, taken away when this is dropped.
pub struct Routines {
    tracefs: PathBuf,
    /// Name of the group of events: another program may have probes of its own.
    group: String,
    events: Vec<&'static str>,
}

impl Routines {
    /// Probes the routines that this kernel has, or says why it cannot.
    pub fn probe() -> Result<Self, String> {
        let tracefs = tracefs()?;
        let mut routines = Self {
            group: format!("pinwire_{}", std::process::id()),
            events: Vec::new(),
            tracefs,
        };
        let mut why = None;
        for (copies, less) in COPIES {
            for probe in copies.iter().chain(less) {
                match routines.append("kprobe_events", &probe.event(&routines.group)) {
                    Ok(()) => routines.events.push(probe.function),
                    // Another kernel has others.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        why.get_or_insert(format!("a kprobe on {}: {error}", probe.function));
                    }
                }
            }
        }
        if let Some(why) = why {
            return Err(why);
        }
        routines.begin()?;
        trial().map_err(|error| format!("a trial of it: {error}"))?;
        match routines.copied()? {
            TRIAL.. => Ok(routines),
            seen => Err(format!(
                "of {TRIAL} bytes that were copied for a trial {seen} were seen: do our threads have \
                 other numbers in the kernel's own eyes, as in a container?"
            )),
        }
    }

    /// Counts from here.
    pub fn begin(&self) -> Result<(), String> {
        for event in &self.events {
            // It is not there the first time.
            let _ = self.append(&self.trigger(event), &format!("!{SUM}"));
            self.append(&self.trigger(event), SUM)
                .map_err(|error| format!("a hist trigger on {event}: {error}"))?;
        }
        Ok(())
    }

    /// Bytes copied for our threads, for those that the kernel began for us, and in interrupts, since then.
    pub fn copied(&self) -> Result<u64, String> {
        let ours = threads().map_err(|error| format!("/proc/self/task: {error}"))?;
        let mut copied = 0;
        for (copies, less) in COPIES {
            let sum = |probes: &[Probe]| {
                let probes = probes.iter().map(|probe| probe.function);
                let there = probes.filter(|function| self.events.contains(function));
                there.map(|event| self.sum(event, &ours)).sum()
            };
            let (copies, less): (Result<u64, String>, Result<u64, String>) =
                (sum(copies), sum(less));
            copied += copies?.saturating_sub(less?);
        }
        Ok(copied)
    }

    /// Bytes that passed at one.
    fn sum(&self, event: &str, ours: &[u32]) -> Result<u64, String> {
        let path = format!("events/{}/{event}/hist", self.group);
        let text = fs::read_to_string(self.tracefs.join(&path));
        let text = text.map_err(|error| format!("{path}: {error}"))?;
        let lines = text.lines().filter_map(line);
        let lines = lines.filter(|line| line.is_of(ours));
        Ok(lines.map(|line| line.bytes).sum())
    }

    fn trigger(&self, event: &str) -> String {
        format!("events/{}/{event}/trigger", self.group)
    }

    fn append(&self, file: &str, line: &str) -> io::Result<()> {
        let path = self.tracefs.join(Path::new(file));
        let mut file = OpenOptions::new().append(true).open(path)?;
        // In one write, since each is a command.
        file.write_all(format!("{line}\n").as_bytes())
    }
}

impl Probe {
    /// Formats the probe as a command to tracefs.
    fn event(&self, group: &str) -> String {
        let function = self.function;
        match self.bytes {
            Bytes::Argument(number) => {
                format!("p:{group}/{function} {function} bytes=$arg{number}:s32")
            }
            Bytes::Int => format!("r:{group}/{function} {function} bytes=$retval:s32"),
            Bytes::Long => format!("r:{group}/{function} {function} bytes=$retval:s64"),
        }
    }
}

impl Drop for Routines {
    fn drop(&mut self) {
        for event in &self.events {
            // A kernel without sums knows nothing of one to be stopped.
            let _ = self.append(&self.trigger(event), &format!("!{SUM}"));
            let gone = self.append("kprobe_events", &format!("-:{}/{event}", self.group));
            if let Err(error) = gone {
                tracing::warn!("the probe on {event} stays: {error}");
            }
        }
    }
}

/// Lets the kernel copy something from a file.
fn trial() -> io::Result<()> {
    let program = fs::File::open("/proc/self/exe")?;
    io::copy(&mut program.take(TRIAL), &mut io::sink()).map(drop)
}

/// The numbers of our threads.
fn threads() -> io::Result<Vec<u32>> {
    let tasks = fs::read_dir("/proc/self/task")?;
    let numbers = tasks.flatten().map(|task| task.file_name());
    Ok(numbers
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect())
}

/// A line of the sums.
struct Line<'a> {
    name: &'a str,
    thread: u32,
    bytes: u64,
}

impl Line<'_> {
    /// A thread of ours, or a worker of io_uring's (`iou-wrk-N`, `iou-sqp-N`), which may be gone by now; or
    /// nobody's, in an interrupt: that is how most packets leave.
    fn is_of(&self, ours: &[u32]) -> bool {
        if self.thread == 0 || self.name.starts_with("ksoftirqd/") {
            return true;
        }
        let worker = self.name.strip_prefix("iou-");
        let owner = worker.and_then(|name| name.split_once('-')?.1.parse().ok());
        ours.contains(&self.thread) || owner.is_some_and(|owner| ours.contains(&owner))
    }
}

/// `{ common_pid: pinwire         [       123] } hitcount:         16  bytes:    1048576`
fn line(text: &str) -> Option<Line<'_>> {
    let (key, values) = text.strip_prefix("{ common_pid: ")?.split_once('}')?;
    let (name, thread) = key.rsplit_once('[')?;
    Some(Line {
        name: name.trim(),
        thread: thread.trim().trim_end_matches(']').trim().parse().ok()?,
        bytes: values.split_once("bytes:")?.1.trim().parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_of_io_uring_and_interrupts_are_ours_and_another_program_is_not() {
        let text = "# trigger info: hist:keys=common_pid.execname\n\n\
            { common_pid: pinwire          [       123] } hitcount:         16  bytes:    1048576\n\
            { common_pid: iou-wrk-123      [       125] } hitcount:          1  bytes:         24\n\
            { common_pid: iou-wrk-99       [       126] } hitcount:          1  bytes:          7\n\
            { common_pid: swapper/0        [         0] } hitcount:          1  bytes:          5\n\
            { common_pid: ksoftirqd/1      [        20] } hitcount:          1  bytes:          6\n\
            { common_pid: a [name] } odd   [       127] } hitcount:          1  bytes:          9\n\n\
            Totals:\n    Hits: 19\n";
        let ours: Vec<_> = text
            .lines()
            .filter_map(line)
            .filter(|line| line.is_of(&[123, 124]))
            .map(|line| (line.thread, line.bytes))
            .collect();
        assert_eq!(ours, [(123, 1_048_576), (125, 24), (0, 5), (20, 6)]);
    }
}
