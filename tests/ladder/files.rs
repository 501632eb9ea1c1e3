//! File to file, and logs: what is in them afterwards, on disks with room and without. The tests work in
//! `PINWIRE_LADDER_DIR`, where another file system than the usual one is to be tried.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pinwire::paths::ladder::{
    BLOCK, Carrier, Job, Kind, Place, RUNGS, Rung, Sink, Stopped, Terms, Why,
};

use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest, Sha256};

use super::common::{again, has_strace};
use super::far::{file_of, hash, hex};
use super::pestered::pestered;
use super::taker::{Habit, Taker, drain, marks};
use super::{Manner, PLAIN, every, send};

const DIR: &str = "PINWIRE_LADDER_DIR";

/// Where files are made.
pub fn scratch() -> PathBuf {
    std::env::var_os(DIR).map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A file there, like the one of [`file_of`].
fn source(len: usize) -> (File, String) {
    let (mut file, sum) = file_of(len);
    let mut here = tempfile::tempfile_in(scratch()).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    std::io::copy(&mut file, &mut here).unwrap();
    (here, sum)
}

/// Copies `len` bytes of `file` into `into`; what the processor copied.
fn copy(manner: &Manner, rung: &Rung, file: &File, len: u64, into: &File) -> Result<u64, Stopped> {
    (&*file).seek(SeekFrom::Start(0)).unwrap();
    let terms = Terms {
        len,
        most: manner.most.unwrap_or(BLOCK),
        stop: manner.stop,
        progress: manner.progress,
    };
    let mut job = Job {
        file,
        sink: Sink::elsewhere(None, terms),
        from: None,
        into: Some(into),
        interface: None,
        card: None,
    };
    (rung.run)(&mut job)?;
    assert_eq!(job.sink.sent(), len);
    Ok(job.sink.copied())
}

/// Do files share blocks here? Asked of a program that is not ours.
fn shares() -> bool {
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    std::fs::write(&one, [1; 100_000]).unwrap();
    let mut cp = Command::new("cp");
    cp.arg("--reflink=always").args([&one, &two]);
    cp.output().unwrap().status.success()
}

/// Every rung that copies, except for reflink where there is none: there it must say so.
fn every_copier(mut body: impl FnMut(&Rung)) {
    let shares = shares();
    for rung in RUNGS.iter().filter(|rung| rung.kind == Kind::Copy) {
        if rung.name != "reflink" || shares {
            println!("--- {}", rung.name);
            body(rung);
            continue;
        }
        let ((file, _), into) = (source(1000), tempfile::tempfile_in(scratch()).unwrap());
        let stopped = copy(&PLAIN, rung, &file, 1000, &into).unwrap_err();
        assert!(matches!(stopped.why, Why::Missing(_)), "{stopped}");
        assert!(stopped.to_string().contains("share no blocks"), "{stopped}");
        assert_eq!(stopped.sent, 0);
    }
}

#[test]
fn a_copy_is_whole_whatever_the_length() {
    let shares = shares();
    for len in [0, 1, 4096, 65536, 3_000_001] {
        let (file, sum) = source(len);
        every_copier(|rung| {
            let mut into = tempfile::tempfile_in(scratch()).unwrap();
            let copied = copy(&PLAIN, rung, &file, len as u64, &into).unwrap();
            assert_eq!(hash(&mut into), (len as u64, sum.clone()));
            let shown = rung
                .hops
                .iter()
                .filter(|hop| hop.by == Carrier::Cpu)
                .count();
            // What is smaller lies in the tree itself, on btrfs, and is copied.
            let is_shared = shares && rung.name == "copy_file_range" && len >= 4096;
            let expected = if is_shared { 0 } else { shown };
            assert_eq!(copied, (expected * len) as u64);
        });
    }
}

#[test]
fn a_part_of_a_file_is_copied_alone() {
    let (file, _) = source(100_000);
    every_copier(|rung| {
        let mut into = tempfile::tempfile_in(scratch()).unwrap();
        copy(&PLAIN, rung, &file, 65_536, &into).unwrap();
        assert_eq!(hash(&mut into).0, 65_536);
    });
}

#[test]
fn a_copy_of_a_file_that_is_shorter_than_it_was_is_told_with_what_was_copied() {
    let (file, sum) = source(100_000);
    every_copier(|rung| {
        let mut into = tempfile::tempfile_in(scratch()).unwrap();
        let stopped = copy(&PLAIN, rung, &file, 200_000, &into).unwrap_err();
        assert!(matches!(stopped.why, Why::Shrunk), "{stopped}");
        assert_eq!((stopped.sent, stopped.len), (100_000, 200_000));
        assert_eq!(hash(&mut into), (100_000, sum.clone()));
    });
}

#[test]
fn a_file_that_shrinks_while_it_is_copied_is_told() {
    // Seconds of work, so that it is not over before it is cut.
    const LEN: u64 = 8 << 30;
    every_copier(|rung| {
        // One call, which nobody comes in between.
        if rung.name == "reflink" {
            return;
        }
        let file = tempfile::tempfile_in(scratch()).unwrap();
        file.set_len(LEN).unwrap();
        let into = tempfile::tempfile_in(scratch()).unwrap();
        let progress: &'static AtomicU64 = Box::leak(Box::default());
        let cut = file.try_clone().unwrap();
        let cutter = thread::spawn(move || {
            while progress.load(Ordering::Relaxed) < 1 << 20 {
                thread::sleep(Duration::from_micros(10));
            }
            cut.set_len(1000).unwrap();
        });
        let manner = Manner { progress, ..PLAIN };
        let stopped = copy(&manner, rung, &file, LEN, &into).unwrap_err();
        cutter.join().unwrap();
        assert!(matches!(stopped.why, Why::Shrunk), "{stopped}");
        assert_eq!(into.metadata().unwrap().len(), stopped.sent);
    });
}

/// 5 GiB: more than a call moves, and more than 32 bits count.
pub const HUGE: u64 = 5 << 30;

/// Makes a file as long as that, which holds nothing but its marks: 1, 2, 3, 4.
pub fn mark(file: &File) {
    file.set_len(HUGE).unwrap();
    for (mark, place) in [1, 2, 3, 4].into_iter().zip(marks(HUGE)) {
        file.write_all_at(&[mark], place).unwrap();
    }
}

#[test]
fn a_sparse_file_of_5_gib_is_copied_whole_also_where_a_call_is_asked_for_all_of_it() {
    let shares = shares();
    let file = if shares {
        tempfile::tempfile_in(scratch()).unwrap()
    } else {
        // Nothing in memory is read faster than nothing on a disk.
        File::from(memfd_create("huge", MemfdFlags::CLOEXEC).unwrap())
    };
    mark(&file);
    every_copier(|rung| {
        let is_mapped = rung.name.contains("mmap");
        let has_block = rung.hops.iter().any(|hop| hop.to == Place::User);
        // All of it; and of a mapping a call that begins behind 4 GiB, too: none does where each moves 2 GiB.
        let most = (!has_block || is_mapped).then_some(HUGE as usize);
        let behind = is_mapped.then_some(Some(3 << 29));
        for most in std::iter::once(most).chain(behind) {
            let (into, kept) = match rung.name {
                "copy_file_range" | "reflink" if shares => {
                    let into = tempfile::tempfile_in(scratch()).unwrap();
                    let there = into.try_clone().unwrap();
                    (into, Some(Kept::There(there)))
                }
                // It would write 5 GiB, or share no blocks.
                "copy_file_range" | "reflink" => return,
                // Those do the same wherever the file is, which is looked at where that is quick.
                _ if shares => (File::options().write(true).open("/dev/null").unwrap(), None),
                _ => {
                    let (into, passed) = passing();
                    (into, Some(Kept::Passed(passed)))
                }
            };
            copy(&Manner { most, ..PLAIN }, rung, &file, HUGE, &into).unwrap();
            drop(into);
            if let Some(kept) = kept {
                assert_eq!(kept.marks(), [1, 2, 3, 4], "{}", rung.name);
            }
        }
    });
}

/// Where a long file went.
pub enum Kept {
    /// Into a file that shares its blocks.
    There(File),
    /// Through here.
    Passed(JoinHandle<Vec<u8>>),
}

impl Kept {
    /// The bytes at the marks.
    pub fn marks(self) -> Vec<u8> {
        match self {
            Self::Passed(passed) => passed.join().unwrap(),
            Self::There(file) => {
                assert_eq!(file.metadata().unwrap().len(), HUGE);
                let at = |place| {
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, place).unwrap();
                    byte[0]
                };
                marks(HUGE).map(at).to_vec()
            }
        }
    }
}

/// A file whose content passes: a socket, whose other end throws away what is not at the marks.
pub fn passing() -> (File, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let into = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (data, _) = listener.accept().unwrap();
    let passed = thread::spawn(move || {
        let (mut got, mut kept, mut block) = (0, Vec::new(), vec![0; 1 << 20]);
        while got < HUGE {
            let (read, byte) = drain(&data, got, HUGE, &mut block);
            assert_ne!(read, 0, "all of it");
            got += read as u64;
            kept.extend(byte);
        }
        kept
    });
    (OwnedFd::from(into).into(), passed)
}

#[test]
fn a_full_disk_is_told_with_what_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().display();
    let script = format!("mount -t tmpfs -o size=4m tmpfs '{dir}'; export {DIR}='{dir}'");
    if !again(&["--mount"], &script, "PINWIRE_FULL_DISK") {
        return;
    }
    const LEN: usize = 3_000_000;
    let full = |stopped: &Stopped| match &stopped.why {
        Why::Call { source, .. } => source.kind() == ErrorKind::StorageFull,
        _ => false,
    };
    let (file, _) = source(LEN);
    every_copier(|rung| {
        let into = tempfile::tempfile_in(scratch()).unwrap();
        let stopped = copy(&PLAIN, rung, &file, LEN as u64, &into).unwrap_err();
        assert!(full(&stopped), "{stopped}");
        assert!((1_000_000..LEN as u64).contains(&stopped.sent), "{stopped}");
        assert_eq!(into.metadata().unwrap().len(), stopped.sent);
    });
    every(&[Kind::Log], |rung, protocol| {
        let taker = Taker::start(Habit::PausesAfter(LEN));
        let stopped = send(rung, protocol, &file, LEN as u64, taker.address).unwrap_err();
        assert!(full(&stopped), "{stopped}");
        assert!((1_000_000..LEN as u64).contains(&stopped.sent), "{stopped}");
        // All that was sent, and no more, has arrived.
        let taken = taker.taken.recv().unwrap();
        let bytes: usize = taken.iter().map(Vec::len).sum();
        assert_eq!(bytes as u64, stopped.sent);
    });
}

#[test]
fn signals_and_short_writes_lose_nothing_of_a_copy() {
    const LEN: usize = 3_000_001;
    let (file, sum) = source(LEN);
    let writes = |rung: &&Rung| rung.name.starts_with("copy: ");
    for rung in RUNGS.iter().filter(writes) {
        let mut signals = 0;
        // How many come while one copy lasts is the scheduler's business.
        while signals < 100 {
            // A pipe that a block does not fit into: a signal ends a write in its middle.
            let (end, into) = rustix::pipe::pipe().unwrap();
            rustix::pipe::fcntl_setpipe_size(&into, 4096).unwrap();
            let taken = thread::spawn(move || {
                let (mut end, mut all, mut some) = (File::from(end), Vec::new(), [0; 3000]);
                while let read @ 1.. = end.read(&mut some).unwrap() {
                    all.extend_from_slice(&some[..read]);
                    thread::sleep(Duration::from_micros(10));
                }
                all
            });
            let into = File::from(into);
            let (copied, more) = pestered(|| copy(&PLAIN, rung, &file, LEN as u64, &into));
            drop(into);
            copied.unwrap();
            let taken = taken.join().unwrap();
            assert_eq!(taken.len(), LEN, "{}", rung.name);
            assert_eq!(hex(&Sha256::digest(&taken)), sum, "{}", rung.name);
            assert!(more > 0, "{}: nobody signals", rung.name);
            signals += more;
        }
    }
}

#[test]
fn a_copy_goes_on_after_calls_that_a_signal_ended() {
    const INSIDE: &str = "PINWIRE_COPY_INTERRUPTED";
    // Who is traced cannot trace.
    if std::env::var_os(INSIDE).is_none() && !has_strace() {
        return;
    }
    // Every other call of a thread; the first ones are those that load the program.
    let log = tempfile::NamedTempFile::new().unwrap();
    let strace = format!(
        "set -- strace -f -qqq -o {} -e inject=read,write,copy_file_range:error=EINTR:when=20+2 \"$@\"",
        log.path().display()
    );
    if !again(&[], &strace, INSIDE) {
        let log = std::fs::read_to_string(log.path()).unwrap();
        for call in ["read", "write", "copy_file_range"] {
            let ended = format!(" {call}(");
            let is_ended = |line: &&str| line.contains(&ended) && line.contains("EINTR");
            assert!(log.lines().filter(is_ended).count() > 5, "{call}: {log}");
        }
        return;
    }
    let (file, sum) = source(3_000_001);
    every_copier(|rung| {
        let mut into = tempfile::tempfile_in(scratch()).unwrap();
        let copied = thread::scope(|scope| {
            let copied = scope.spawn(|| copy(&PLAIN, rung, &file, 3_000_001, &into));
            copied.join().unwrap()
        });
        copied.unwrap();
        assert_eq!(hash(&mut into), (3_000_001, sum.clone()), "{}", rung.name);
    });
}
