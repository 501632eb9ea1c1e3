//! The life of a file's pages in the VM, from the first miss to the eviction, as `pinwire pagecache` tells
//! it, held against what the disk counts (`/proc/diskstats`) and the kernel's own sums (`/proc/vmstat`).
#![cfg(feature = "cli")]

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common;

/// Pages of the file: 4 MiB.
const PAGES: u64 = 1024;
/// Pages that are written.
const WRITTEN: u64 = 16;
/// Sectors of a page.
const SECTORS: u64 = 8;

/// One stop on the way.
struct Stop {
    look: Value,
    /// Sectors that the disk has read and written so far.
    read: u64,
    written: u64,
    /// Pages that are dirty in all the machine.
    nr_dirty: u64,
}

#[test]
fn a_page_is_missed_hit_dirtied_written_by_sync_and_by_time_and_evicted() {
    let script = r#"
        file=/disk/file
        stop() {
            echo "$1 $(awk '$3 == "vda" { print $6, $10 }' /proc/diskstats) $(awk '$1 == "nr_dirty" { print $2 }' /proc/vmstat) $(pinwire pagecache $file --json)"
        }
        write() { dd if=/dev/urandom of=$file bs=4096 seek=100 count=16 conv=notrunc 2>/dev/null; }
        # What is mapped stays when the rest is dropped, and the watcher maps what it looks at: it stops between two looks.
        hold() { while kill -STOP $watcher; grep -q $file /proc/$watcher/maps; do kill -CONT $watcher; sleep 0.05; done; }
        # Nothing is written back by itself until we say so.
        echo 0 >/proc/sys/vm/dirty_writeback_centisecs
        dd if=/dev/urandom of=$file bs=1M count=4 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches
        pinwire pagecache $file --flags --watch 0.2 >/tmp/watched & watcher=$!
        until grep -q . /tmp/watched; do sleep 0.1; done; sleep 1; stop cold
        cat $file >/dev/null; sleep 1; stop missed
        cat $file >/dev/null; sleep 1; stop hit
        write; sleep 1; stop dirty
        pinwire pagecache $file --sync >&2; sleep 1; stop synced
        write; sleep 1; stop dirty_again
        echo 100 >/proc/sys/vm/dirty_expire_centisecs
        echo 50 >/proc/sys/vm/dirty_writeback_centisecs
        sleep 5; stop by_time
        echo 0 >/proc/sys/vm/dirty_writeback_centisecs
        echo 3000 >/proc/sys/vm/dirty_expire_centisecs
        write; hold; pinwire pagecache $file --evict --json | sed 's/^/evict_dirty 0 0 0 /'
        pinwire pagecache $file --sync --evict >&2; kill -CONT $watcher; sleep 1; stop evicted
        pinwire pagecache $file --read-ahead >&2; stop read_ahead
        pinwire pagecache $file >&2; stop again; sleep 1
        kill -INT $watcher; wait $watcher; echo "exit $?"
        sed 's/^/watched /' /tmp/watched
    "#;
    let Some(output) = common::vm(&["--disk", "256M"], script) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    let mut stops = BTreeMap::new();
    for line in text.lines().filter(|line| line.ends_with('}')) {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        let number = |index: usize| words[index].parse().unwrap();
        let stop = Stop {
            look: serde_json::from_str(words[4]).unwrap(),
            read: number(1),
            written: number(2),
            nr_dirty: number(3),
        };
        stops.insert(words[0], stop);
    }
    let of = |name: &str| {
        stops
            .get(name)
            .unwrap_or_else(|| panic!("{name}: {text}{error}"))
    };
    let count = |name: &str, what: &str| of(name).look[what].as_u64().unwrap();
    let read = |from: &str, to: &str| of(to).read - of(from).read;
    let written = |from: &str, to: &str| of(to).written - of(from).written;

    assert_eq!(
        of("cold").look["known_by"],
        "/proc/kpageflags",
        "Linux 6.1 has no cachestat"
    );
    assert_eq!(count("cold", "resident"), 0);

    assert_eq!(count("missed", "resident"), PAGES);
    assert!(
        read("cold", "missed") >= PAGES * SECTORS,
        "the disk was read"
    );

    assert_eq!(count("hit", "resident"), PAGES);
    assert_eq!(read("missed", "hit"), 0, "the disk was not read again");

    assert_eq!(
        (count("dirty", "resident"), count("dirty", "dirty")),
        (PAGES, WRITTEN)
    );
    assert!(of("dirty").nr_dirty >= WRITTEN);
    let places: Vec<u64> = (0..)
        .zip(of("dirty").look["cells"].as_array().unwrap())
        .filter(|(_, cell)| cell["dirty"] == 1)
        .map(|(page, _)| page)
        .collect();
    assert_eq!(places, (100..100 + WRITTEN).collect::<Vec<_>>());

    assert_eq!(
        (count("synced", "dirty"), count("synced", "writeback")),
        (0, 0)
    );
    assert!(written("dirty", "synced") >= WRITTEN * SECTORS);
    assert_eq!(count("synced", "resident"), PAGES, "what is written stays");

    assert_eq!(
        count("dirty_again", "dirty"),
        WRITTEN,
        "nobody has written it"
    );
    assert_eq!(
        (count("by_time", "dirty"), count("by_time", "writeback")),
        (0, 0)
    );
    assert!(written("dirty_again", "by_time") >= WRITTEN * SECTORS);

    let evict = &of("evict_dirty").look["acts"][0];
    assert_eq!(evict["before"]["dirty"], WRITTEN);
    let stayed = evict["after"]["resident"].as_u64().unwrap();
    assert!(stayed <= WRITTEN, "only what is dirty stays: {evict}");

    assert_eq!(count("evicted", "resident"), 0);
    assert_eq!(count("read_ahead", "resident"), PAGES);
    assert!(read("evicted", "read_ahead") >= PAGES * SECTORS);

    // Before Linux 6.3 a page that was mapped looks used, unless one sees to it that it does not.
    for what in ["referenced", "active"] {
        assert_eq!(count("again", what), 0, "looking is no use of a page");
    }

    assert!(text.contains("exit 130"), "{text}");
    let watched: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("watched"))
        .collect();
    for event in [
        "read in",
        "used again",
        "dirtied",
        "written back",
        "dropped",
    ] {
        assert!(
            watched.iter().any(|line| line.contains(event)),
            "{event}: {watched:#?}"
        );
    }
    let sum = |event: &str| -> u64 {
        let number = |line: &&str| {
            let before = line
                .split(event)
                .next()
                .filter(|before| before.len() < line.len())?;
            before.trim_end().rsplit(' ').next()?.parse::<u64>().ok()
        };
        watched.iter().filter_map(number).sum()
    };
    assert_eq!(sum(" read in"), 2 * PAGES, "{watched:#?}");
    assert!(sum(" used again") >= PAGES, "{watched:#?}");
    assert!(sum(" dirtied") >= 2 * WRITTEN, "{watched:#?}");
    assert!(sum(" written back") >= 2 * WRITTEN, "{watched:#?}");
    assert_eq!(sum(" dropped"), PAGES, "{watched:#?}");
}
