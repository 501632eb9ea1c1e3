//! The page cache of real files, as the library and `pinwire pagecache` tell it, held against what is not
//! our code: python's own `mincore`, `fincore` of util-linux, and what was written where.
#![cfg(feature = "cli")]

#[path = "pagecache/backing.rs"]
mod backing;
mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::iter::repeat_with;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pinwire::Error;
use pinwire::paths::pagecache::{
    Backing, Counts, How, Look, Span, Witness, evict, look, page_bytes, read_ahead, residency,
    sync, touch, warm,
};
use proptest::prelude::*;
use serde_json::Value;

static GO_ON: AtomicBool = AtomicBool::new(false);

/// Where files are that have a disk; `cargo` gives it.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A file of so many pages, on the disk and not in the cache. Nothing where python, our witness, is
/// missing; the test must return then.
fn cold(folder: &Path, pages: u64) -> Option<(PathBuf, File)> {
    if Command::new("python3").arg("--version").output().is_err() {
        common::not_run("python3 is missing; install it: qemu/setup");
        return None;
    }
    let path = folder.join("file");
    let content: Vec<u8> = (0..pages * page_bytes()).map(|at| at as u8).collect();
    std::fs::write(&path, content).unwrap();
    let file = File::open(&path).unwrap();
    python(
        "import os, sys; f = os.open(sys.argv[1], os.O_RDONLY); os.fsync(f); \
         os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)",
        &path,
    );
    Some((path, file))
}

/// Runs a few lines of python on a file; what they print.
fn python(lines: &str, path: &Path) -> String {
    let output = Command::new("python3")
        .args(["-c", lines])
        .arg(path)
        .output()
        .expect("python3");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Which pages are there, by a `mincore` that is not ours.
fn mincore(path: &Path) -> Vec<bool> {
    let text = python(
        r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
f = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(f).st_size
at = libc.mmap(None, size, 1, 1, f, 0)
pages = ctypes.create_string_buffer((size + 4095) // 4096)
assert libc.mincore(at, size, pages) == 0
print("".join(str(page & 1) for page in pages.raw[:(size + 4095) // 4096]))
"#,
        path,
    );
    text.trim().bytes().map(|byte| byte == b'1').collect()
}

/// The kernel, or somebody's `sync`, may write back any time, but hardly each time.
const TRIES: usize = 3;

/// What is seen between two looks of somebody else's that are alike: the kernel may drop a page any time.
fn undisturbed<T>(path: &Path, see: impl Fn() -> T) -> (Vec<bool>, T) {
    for _ in 0..20 {
        let before = mincore(path);
        let seen = see();
        if mincore(path) == before {
            return (before, seen);
        }
    }
    panic!("pages come and go all the time");
}

/// Reads these pages and no others.
fn read_pages(path: &Path, pages: &[u64]) {
    let list = format!("{pages:?}");
    let lines = "import os, sys, ast; f = os.open(sys.argv[1], os.O_RDONLY); \
                 os.posix_fadvise(f, 0, 0, os.POSIX_FADV_RANDOM); "
        .to_owned()
        + &format!(
            "[os.pread(f, 1, page * {}) for page in {list}]",
            page_bytes()
        );
    python(&lines, path);
}

fn looked(file: &File, cell: u64, how: How) -> Look {
    look(file, Span::all(file).unwrap(), cell, how, &GO_ON).unwrap()
}

fn all(file: &File) -> Span {
    Span::all(file).unwrap()
}

fn there(look: &Look) -> Vec<bool> {
    look.cells.iter().map(|cell| cell.resident == 1).collect()
}

/// The witnesses that this machine and this user have.
fn witnesses(file: &File) -> Vec<How> {
    let hows = [
        (How::Best, Witness::Cachestat),
        (How::Flags, Witness::PageFlags),
        (How::Mincore, Witness::Mincore),
    ];
    let mut found = Vec::new();
    for (how, witness) in hows {
        let look = looked(file, 1, how);
        match look.witness == witness {
            true => found.push(how),
            false => cannot(&look.why.join("; ")),
        }
    }
    found
}

/// Says what this kernel or this user cannot test. No failure even where all must run: nothing can be
/// installed to change it, and tests/vm/pagecache.rs looks as root.
fn cannot(why: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "\nNOT RUN HERE: {name}: {why}");
}

/// Is there somebody who tells which pages are dirty?
fn knows_dirty(file: &File) -> bool {
    let look = looked(file, 1, How::Best);
    let knows = look.witness != Witness::Mincore;
    if !knows {
        cannot(&look.why.join("; "));
    }
    knows
}

fn pinwire<const N: usize>(args: [&str; N]) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_pinwire"));
    command
        .arg("pagecache")
        .args(args)
        .timeout(Duration::from_secs(60));
    command
}

fn json(command: &mut assert_cmd::Command) -> Vec<Value> {
    let output = command.assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    let objects = text.lines().map(serde_json::from_str);
    objects.collect::<Result<_, _>>().unwrap()
}

#[test]
fn every_witness_sees_the_same_pages_as_a_mincore_that_is_not_ours_and_as_fincore() {
    let folder = folder();
    let Some((path, file)) = cold(folder.path(), 300) else {
        return;
    };
    let pages: Vec<u64> = (0..300).filter(|page| page * page % 7 < 3).collect();
    read_pages(&path, &pages);
    let expected = mincore(&path);
    assert!(expected.contains(&true) && expected.contains(&false));
    for how in witnesses(&file) {
        let (expected, looks) = undisturbed(&path, || [1, 64].map(|cell| looked(&file, cell, how)));
        let [single, binned] = looks;
        assert_eq!(there(&single), expected, "{how:?}");
        let sums: Vec<u64> = expected
            .chunks(64)
            .map(|cell| cell.iter().filter(|there| **there).count() as u64)
            .collect();
        let counts: Vec<u64> = binned.cells.iter().map(|cell| cell.resident).collect();
        assert_eq!(counts, sums, "{how:?}");
    }
    let fincore = || {
        let mut command = Command::new("fincore");
        command.args(["--noheadings", "--output", "PAGES"]);
        command.arg(&path).output()
    };
    let (_, fincore) = undisturbed(&path, || (fincore(), residency(&file, all(&file)).unwrap()));
    match fincore {
        (Ok(output), total) => {
            let count: u64 = String::from_utf8(output.stdout)
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            assert_eq!(total.resident, count);
        }
        (Err(_), _) => common::not_run("part of it: fincore is missing (util-linux)"),
    }
}

#[test]
fn looking_changes_nothing() {
    let folder = folder();
    let Some((path, file)) = cold(folder.path(), 400) else {
        return;
    };
    // The second half of what is read in a row is marked by the kernel: who uses it starts a read-ahead.
    python(
        "import sys; open(sys.argv[1], 'rb', 0).read(100 * 4096)",
        &path,
    );
    // What is read ahead comes in later.
    let (before, ()) = undisturbed(&path, || std::thread::sleep(Duration::from_millis(100)));
    for how in witnesses(&file) {
        let (_, alike) = undisturbed(&path, || {
            let first = looked(&file, 1, how);
            (0..5).all(|_| looked(&file, 1, how).cells == first.cells)
        });
        assert!(alike, "{how:?}");
    }
    // Nothing came in. What the kernel dropped by itself is a page now and then.
    let after = mincore(&path);
    let changed = |from: bool| {
        let pages = before.iter().zip(&after);
        pages
            .filter(|(was, is)| **was == from && **is != from)
            .count()
    };
    assert_eq!(changed(false), 0, "a look brought pages in");
    assert!(changed(true) < 20, "looks dropped {}", changed(true));
}

#[test]
fn two_witnesses_agree_on_what_is_dirty_and_sync_ends_it() {
    let folder = folder();
    let Some((path, file)) = cold(folder.path(), 64) else {
        return;
    };
    if !knows_dirty(&file) {
        return;
    }
    let writer = File::options().write(true).open(&path).unwrap();
    let write = || {
        for page in [3, 4, 40] {
            writer.write_all_at(b"new", page * page_bytes()).unwrap();
        }
    };
    let told = |how| {
        write();
        let look = looked(&file, 1, how);
        if look.witness == Witness::Mincore {
            assert_eq!(look.total().dirty, None);
            return None;
        }
        let is_dirty = |page: &usize| look.cells[*page].dirty == Some(1);
        Some((0..64).filter(is_dirty).collect::<Vec<usize>>())
    };
    for how in witnesses(&file) {
        let right = |dirty: &Option<Vec<usize>>| dirty.as_ref().is_none_or(|d| d[..] == [3, 4, 40]);
        let tries: Vec<_> = repeat_with(|| told(how)).take(TRIES).collect();
        assert!(tries.iter().any(right), "{how:?}: {tries:?}");
    }
    let part = Span { first: 4, pages: 1 };
    let left = || {
        write();
        sync(&file, Some(part)).unwrap();
        residency(&file, all(&file)).unwrap().dirty
    };
    let left: Vec<_> = repeat_with(left).take(TRIES).collect();
    let only = "only what was asked for is written";
    assert!(left.contains(&Some(2)), "{only}: {left:?}");
    sync(&file, None).unwrap();
    let total = residency(&file, all(&file)).unwrap();
    assert_eq!((total.dirty, total.writeback), (Some(0), Some(0)));
}

#[test]
fn what_is_clean_can_be_evicted_in_parts_and_read_ahead_brings_it_back() {
    let folder = folder();
    let Some((path, file)) = cold(folder.path(), 500) else {
        return;
    };
    assert_eq!(residency(&file, all(&file)).unwrap().resident, 0);
    assert_eq!(warm(&file, all(&file), &GO_ON).unwrap().resident, 500);
    let middle = Span {
        first: 100,
        pages: 50,
    };
    assert_eq!(evict(&file, middle).unwrap().resident, 0);
    let there = mincore(&path);
    let gone: Vec<usize> = (0..500).filter(|page| !there[*page]).collect();
    assert_eq!(gone, (100..150).collect::<Vec<_>>());
    assert_eq!(evict(&file, all(&file)).unwrap().resident, 0);
    assert!(!mincore(&path).contains(&true));
    read_ahead(&file, all(&file)).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while mincore(&path).contains(&false) {
        assert!(std::time::Instant::now() < deadline, "not read ahead");
    }
}

#[test]
fn warming_a_file_ends_where_it_is_to_stop() {
    let folder = folder();
    let Some((path, file)) = cold(folder.path(), 500) else {
        return;
    };
    let stopped = warm(&file, all(&file), &AtomicBool::new(true));
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    assert!(mincore(&path).contains(&false));
}

#[test]
fn touch_misses_on_a_cold_file_and_hits_on_a_warm_one() {
    let folder = folder();
    let Some((path, file)) = cold(folder.path(), 3000) else {
        return;
    };
    let first = touch(&file, all(&file), &GO_ON).unwrap();
    assert_eq!((first.pages, first.gone), (3000, 0));
    assert!(first.misses > 0, "{first:?}");
    assert!(!mincore(&path).contains(&false));
    let second = touch(&file, all(&file), &GO_ON).unwrap();
    assert_eq!((second.pages, second.misses), (3000, 0), "{second:?}");
    assert!((1..=3000).contains(&second.hits), "{second:?}");
}

#[test]
fn a_file_that_shrinks_under_us_kills_nobody_and_is_told() {
    let folder = folder();
    let Some((path, file)) = cold(folder.path(), 5000) else {
        return;
    };
    warm(&file, all(&file), &GO_ON).unwrap();
    let long = all(&file);
    let writer = File::options().write(true).open(&path).unwrap();
    writer.set_len(10 * page_bytes()).unwrap();
    let touched = touch(&file, long, &GO_ON).unwrap();
    assert_eq!((touched.pages, touched.gone), (10, 4990));
    for how in witnesses(&file) {
        let look = look(&file, long, 1, how, &GO_ON).unwrap();
        assert_eq!(look.total().resident, 10, "{how:?}");
        assert_eq!(look.cells.len(), 5000, "{how:?}");
    }
    assert_eq!(warm(&file, long, &GO_ON).unwrap().resident, 10);
    assert_eq!(evict(&file, long).unwrap().resident, 0);
    read_ahead(&file, long).unwrap();
}

#[test]
fn a_file_of_more_than_2_to_the_32_pages_is_looked_at_at_once_and_in_little_memory() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("huge");
    let file = File::create_new(&path).unwrap();
    file.set_len(32 << 40).unwrap();
    file.write_all_at(b"there", 20 << 40).unwrap();
    let small = tempfile::tempfile_in("/dev/shm").unwrap();
    small.set_len(1).unwrap();
    if looked(&small, 1, How::Best).witness != Witness::Cachestat {
        cannot("without cachestat every page of it would have to be asked for");
        return;
    }
    let script = "ulimit -v 500000; exec \"$1\" pagecache \"$2\" --json";
    let mut command = assert_cmd::Command::new("sh");
    command
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_pinwire")])
        .arg(&path)
        .timeout(Duration::from_secs(60));
    let look = &json(&mut command)[0];
    assert_eq!(look["pages"], 1u64 << 33);
    assert_eq!(look["resident"], 1);
    let cells = look["cells"].as_array().unwrap();
    let of = |place: u64| place / page_bytes() / look["cell_pages"].as_u64().unwrap();
    assert_eq!(cells[of(20 << 40) as usize]["resident"], 1);
}

#[test]
fn mincore_goes_through_a_long_file_in_windows_and_can_be_stopped() {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len((3 << 30) + 1).unwrap();
    let places = [0, 1 << 30, (2 << 30) + 4096, 3 << 30];
    for place in places {
        file.write_all_at(b"!", place).unwrap();
    }
    let look = looked(&file, 1 << 10, How::Mincore);
    let found: Vec<u64> = (0..)
        .zip(&look.cells)
        .filter(|(_, cell)| cell.resident == 1)
        .map(|(number, _)| number)
        .collect();
    assert_eq!(found, places.map(|place| place >> 22));
    assert_eq!(look.total().pages, (3 << 18) + 1);
    let stop = AtomicBool::new(true);
    for how in [How::Mincore, How::Flags] {
        let stopped = pinwire::paths::pagecache::look(&file, all(&file), 1, how, &stop);
        if how == How::Mincore || witnesses(&small_file()).contains(&How::Flags) {
            assert!(matches!(stopped, Err(pinwire::Error::Interrupted)));
        }
    }
}

fn small_file() -> File {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.set_len(4096).unwrap();
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// On tmpfs a page is there where something was written, and nowhere else.
    #[test]
    fn cells_of_any_size_count_what_was_written(
        pages in 1..200u64, cell in 1..70u64, written in proptest::collection::btree_set(0..200u64, 0..60),
        offset in 0..900_000u64, length in proptest::option::of(0..900_000u64),
    ) {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(pages * page_bytes()).unwrap();
        let written: Vec<u64> = written.into_iter().filter(|page| *page < pages).collect();
        for page in &written {
            file.write_all_at(b"!", page * page_bytes() + 7).unwrap();
        }
        let span = Span::within(&file, offset, length).unwrap();
        for how in [How::Best, How::Flags, How::Mincore] {
            let look = look(&file, span, cell, how, &GO_ON).unwrap();
            prop_assert_eq!(look.cells.len() as u64, span.pages.div_ceil(cell));
            for (piece, counts) in span.pieces(cell).zip(&look.cells) {
                let here = piece.first..piece.first + piece.pages;
                let expected = written.iter().filter(|page| here.contains(page)).count() as u64;
                prop_assert_eq!((counts.pages, counts.resident), (piece.pages, expected));
            }
        }
    }
}

#[test]
fn the_map_shows_each_page_of_a_small_file() {
    let folder = folder();
    let Some((path, _)) = cold(folder.path(), 20) else {
        return;
    };
    read_pages(&path, &[0, 1, 2, 3, 8, 19]);
    let see = || pinwire([path.to_str().unwrap()]).assert().success();
    let (there, output) = undisturbed(&path, see);
    let shown: String = (0..)
        .zip(there)
        .map(|(page, there)| {
            let gap = if page > 0 && page % 8 == 0 { " " } else { "" };
            format!("{gap}{}", if there { '█' } else { '·' })
        })
        .collect();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert!(text.contains(&format!("     0 {shown}\n")), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.contains("20 pages of 4096 bytes"), "{text}");
}

#[test]
fn the_acts_are_done_in_order_and_counted() {
    let folder = folder();
    let Some((path, _)) = cold(folder.path(), 200) else {
        return;
    };
    let path = path.to_str().unwrap();
    let args = [
        path,
        "--json",
        "--sync",
        "--evict",
        "--read-ahead",
        "--touch",
    ];
    let look = &json(&mut pinwire(args))[0];
    let acts = look["acts"].as_array().unwrap();
    let names: Vec<&str> = acts
        .iter()
        .map(|act| act["act"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["sync", "evict", "read-ahead", "touch"]);
    assert_eq!(acts[1]["after"]["resident"], 0);
    assert_eq!(acts[2]["after"]["resident"], 200);
    assert_eq!(
        (&acts[3]["pages_read"], &acts[3]["major_faults"]),
        (&200.into(), &0.into())
    );
    assert_eq!(look["resident"], 200);
}

#[test]
fn an_eviction_drops_what_is_clean_and_loses_nothing_that_is_dirty() {
    let folder = folder();
    let Some((path, file)) = cold(folder.path(), 256) else {
        return;
    };
    if !knows_dirty(&file) {
        return;
    }
    warm(&file, all(&file), &GO_ON).unwrap();
    let writer = File::options().write(true).open(&path).unwrap();
    writer.write_all_at(&vec![7; 32 * 4096], 64 * 4096).unwrap();
    let look = &json(&mut pinwire([path.to_str().unwrap(), "--evict", "--json"]))[0];
    let after = &look["acts"][0]["after"];
    assert_eq!(look["acts"][0]["before"]["dirty"], 32);
    let stayed = after["resident"].as_u64().unwrap();
    // Their write-back begins at once, and what is through with it early goes, too.
    assert!(stayed <= 32, "all that was clean went: {look}");
    assert_eq!(
        python(
            "import sys; print(open(sys.argv[1], 'rb').read()[64 * 4096])",
            &path
        ),
        "7\n"
    );
}

#[test]
fn pages_that_a_disk_does_not_give_are_not_told_as_a_file_made_shorter() {
    let folder = folder();
    let Some((path, _)) = cold(folder.path(), 10) else {
        return;
    };
    // A page that cannot be read in is EFAULT for who reads it from a mapping.
    let output = Command::new("strace")
        .args(["-f", "-qqq", "-o", "/dev/null", "-e", "trace=pwritev"])
        .args(["-e", "inject=pwritev:error=EFAULT"])
        .args([env!("CARGO_BIN_EXE_pinwire"), "pagecache", "--touch"])
        .arg(&path)
        .output();
    let Ok(output) = output else {
        common::not_run("strace is missing; install it: qemu/setup");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("10 pages cannot be read") && !said.contains("shorter"),
        "{said}"
    );
}

#[test]
fn a_watch_that_looks_again_after_the_end_of_time_waits_for_it() {
    let folder = folder();
    let path = folder.path().join("file");
    std::fs::write(&path, "x").unwrap();
    let watching = Command::new("timeout")
        .args([
            "-s",
            "INT",
            "1",
            env!("CARGO_BIN_EXE_pinwire"),
            "pagecache",
            "--watch",
            "1e19",
        ])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&watching.stderr);
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn watching_tells_what_came_in_and_what_left() {
    let folder = folder();
    let Some((path, _)) = cold(folder.path(), 100) else {
        return;
    };
    let path = path.to_str().unwrap();
    let looks = json(&mut pinwire([
        path, "--watch", "0.2", "-c", "2", "--touch", "--json",
    ]));
    assert_eq!(
        (&looks[0]["resident"], &looks[1]["resident"]),
        (&0.into(), &100.into())
    );
    assert_eq!(looks[1]["since_last"]["read_in"], 100);
    assert_eq!(looks[1]["since_last"]["dropped"], 0);
    assert_eq!(looks[0]["acts"], Value::Array(Vec::new()));
    assert_eq!(looks[1]["acts"][0]["pages_read"], 100);
    let output = pinwire([path, "--watch", "0.2", "-c", "2", "--evict"])
        .assert()
        .success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("100 of 100 pages in the cache"), "{text}");
    assert!(lines[1].contains("100 pages dropped"), "{text}");
    assert!(lines[2].contains("0 of 100 pages in the cache"), "{text}");
    assert!(lines[2].contains("100 dropped"), "{text}");
}

#[test]
fn a_watched_file_may_grow_and_shrink_and_ctrl_c_ends_it() {
    let folder = folder();
    let Some((path, _)) = cold(folder.path(), 10) else {
        return;
    };
    let mut watch = Command::new(env!("CARGO_BIN_EXE_pinwire"))
        .arg("pagecache")
        .arg(&path)
        .args(["--watch", "0.1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let writer = File::options().write(true).open(&path).unwrap();
    for pages in [10, 3000, 0, 2] {
        writer.set_len(pages * page_bytes()).unwrap();
        let wanted = format!(" of {} page", pinwire_count(pages));
        let found = lines.find(|line| line.as_ref().unwrap().contains(&wanted));
        assert!(found.is_some(), "{pages} pages were never seen");
    }
    let pid = rustix::process::Pid::from_child(&watch);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(130));
}

/// As people read it.
fn pinwire_count(number: u64) -> String {
    match number {
        3000 => "3 000".to_owned(),
        number => number.to_string(),
    }
}

#[test]
fn what_has_no_pages_is_told_and_not_waited_for() {
    let folder = folder();
    let empty = folder.path().join("empty");
    File::create(&empty).unwrap();
    let output = pinwire([
        empty.to_str().unwrap(),
        "--sync",
        "--evict",
        "--read-ahead",
        "--touch",
    ])
    .assert()
    .success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert!(
        text.contains("0 bytes") && text.contains("no page"),
        "{text}"
    );
    let past = pinwire([empty.to_str().unwrap(), "--offset", "1G", "--json"]).assert();
    past.success();

    let fifo = folder.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for path in [fifo.to_str().unwrap(), "/", "/dev/null"] {
        let output = pinwire([path]).assert().code(1);
        let text = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        assert!(text.contains("not a regular file"), "{text}");
    }
    let output = pinwire(["/no/such/file"]).assert().code(1);
    let text = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(text.contains("/no/such/file"), "{text}");
}

#[test]
fn who_may_not_write_a_file_of_somebody_elses_is_told_that_he_is_not_told() {
    // As nobody, a program that nobody can reach.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("pinwire");
    std::fs::copy(env!("CARGO_BIN_EXE_pinwire"), &program).unwrap();
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(folder.path(), mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    for args in [&["/etc/passwd"][..], &["/etc/passwd", "--flags"]] {
        let output = command.args(["pagecache"]).args(args).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        // Linux 6.5 to 6.13 tells everybody by cachestat.
        assert!(
            error.contains("is told only to who owns the file")
                || told.contains("counted by cachestat"),
            "{told}{error}"
        );
        command = Command::new(&program);
        if rustix::process::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
    }
}

#[test]
fn without_anybody_who_knows_dirty_is_not_said_to_be_0() {
    let file = small_file();
    let total: Counts = looked(&file, 1, How::Mincore).total();
    assert_eq!(
        (total.dirty, total.writeback, total.active),
        (None, None, None)
    );
}
