//! The house: its rooms, which of them each may know, and where unsafe code lives.
//!
//! [`ROOMS`] is the plan. Each room names only rooms above itself in this table, so that arrows go one way
//! and there is no circle; none names one of a higher storey. What the sources name is held to it, and so are
//! the maps in CONTRIBUTING.md and src/lib.rs. [`UNSAFE`] is the same for unsafe code.

mod layers {
    pub mod source;
}

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use layers::source::Source;

/// Storey of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Storey {
    Ground,
    Devices,
    Riders,
    Top,
}

use Storey::{Devices, Ground, Riders, Top};

impl Storey {
    fn name(self) -> &'static str {
        match self {
            Ground => "ground",
            Devices => "devices",
            Riders => "riders",
            Top => "top",
        }
    }
}

/// A room: a file or a folder of `src`.
struct Room {
    name: &'static str,
    storey: Storey,
    /// Its purpose.
    what: &'static str,
    /// The rooms that it may name.
    knows: &'static [&'static str],
}

const fn room(
    storey: Storey,
    name: &'static str,
    what: &'static str,
    knows: &'static [&'static str],
) -> Room {
    Room {
        name,
        storey,
        what,
        knows,
    }
}

#[rustfmt::skip]
const ROOMS: &[Room] = &[
    room(Ground, "address", "the address of a PCI function", &[]),
    room(Ground, "error", "one error: what was found, and what to do", &["address"]),
    room(Ground, "barrier", "orders our accesses against a device's", &[]),
    room(Ground, "mmio", "registers: how they are declared and reached", &[]),
    room(Ground, "settings", "how settings are set", &[]),
    room(Ground, "irq", "interrupts as eventfds", &["error"]),
    room(Ground, "wait", "waiting with a bound: for registers, and for queues", &["error", "irq"]),
    room(Ground, "ring_state", "whether a ring may be worked on", &["error", "irq"]),
    room(Ground, "user_file", "files that users name, opened without waiting for anybody", &["error"]),
    room(Ground, "pci", "functions: how they are named, found, bound, and what their config space says", &["address", "error"]),
    room(Ground, "dma", "memory that a device can reach, and who owns it", &["error"]),
    room(Ground, "backend", "how a function is reached: VFIO, QEMU's device models, a fake", &["dma", "error", "irq", "mmio", "pci"]),
    room(Ground, "device", "which device, in words", &["backend", "error", "pci"]),
    room(Ground, "inspect", "views for people: registers, rings, features", &["dma", "mmio"]),
    room(Devices, "virtio", "virtqueues, and how a virtio device is reached", &["backend", "barrier", "dma", "error", "inspect", "irq", "mmio", "pci", "ring_state", "wait"]),
    room(Devices, "nic", "network cards: what they share, and the drivers", &["backend", "barrier", "dma", "error", "inspect", "irq", "mmio", "pci", "ring_state", "settings", "virtio", "wait"]),
    room(Devices, "block", "disks: what they share, and the drivers", &["backend", "barrier", "dma", "error", "inspect", "irq", "mmio", "pci", "ring_state", "settings", "virtio", "wait"]),
    room(Devices, "open", "which drivers there are, and from a device's name to a started one", &["backend", "block", "device", "error", "nic", "pci", "virtio"]),
    room(Riders, "net", "what rides on a card: packets, captures, loops that send, answer and forward", &["dma", "error", "nic", "user_file"]),
    room(Riders, "testing", "the tests that every driver of a network card must pass", &["backend", "device", "dma", "error", "inspect", "mmio", "nic", "open"]),
    room(Riders, "paths", "every way that a file's bytes take: the ladder, a server, the page cache", &["error", "net", "nic"]),
    room(Riders, "lab", "what things cost: rates, round trips, the kernel's ways beside them, counters", &["backend", "device", "dma", "error", "irq", "mmio", "net", "nic", "open", "paths", "pci", "user_file"]),
    room(Riders, "scope", "a run, recorded and told; views as text", &["backend", "dma", "error", "inspect", "mmio", "net", "nic"]),
    room(Top, "cli", "the command: arguments, words, pictures", &["backend", "block", "device", "dma", "error", "inspect", "lab", "net", "nic", "open", "paths", "pci", "scope", "user_file"]),
];

/// Drivers name no backend, and parts of a room may not know one another: the first does not name the second.
const STRANGERS: &[(&str, &str)] = &[
    ("nic", "backend::Qtest"),
    ("nic", "backend::Vfio"),
    ("virtio", "backend::Qtest"),
    ("virtio", "backend::Vfio"),
    ("block", "backend::Qtest"),
    ("block", "backend::Vfio"),
    ("backend::qtest", "backend::vfio"),
    ("backend::vfio", "backend::qtest"),
    ("virtio::queue", "virtio::transport"),
    ("nic::intel", "nic::virtio_net"),
    ("nic::virtio_net", "nic::intel"),
    ("net::packet", "net::flow"),
    ("net::capture", "net::flow"),
    ("paths::ladder", "paths::serve"),
    ("paths::serve", "paths::ladder"),
    ("paths::pagecache", "paths::ladder"),
    ("paths::pagecache", "paths::serve"),
];

/// Words of the rooms above, which a room has no use for.
const FOREIGN_WORDS: &[(&str, &[&str])] = &[
    ("dma", &["offload", "vlan", "ethertype"]),
    ("virtio", &["virtio-net", "virtio-blk", "ethernet", "vlan"]),
];

/// Places of unsafe code, with its purpose: a file of `src`, or all of a folder.
const UNSAFE: &[(&str, &str)] = &[
    ("barrier", "the instructions that order memory"),
    (
        "dma",
        "memory that a device may write meanwhile, and its free list",
    ),
    ("irq", "an eventfd that the kernel gave us"),
    ("backend/fake", "memory that a test's device reaches"),
    (
        "backend/qtest",
        "memory that QEMU maps, too; what is done between fork and exec",
    ),
    (
        "backend/vfio",
        "ioctls; a BAR's mapping; memory that is mapped for a device",
    ),
    ("testing/wire", "a packet socket, by plain system calls"),
    (
        "testing/claims/life",
        "buffers of a stopped card, looked at",
    ),
    (
        "paths/uring",
        "what io_uring is asked for: blocks that stay as long as the kernel may use them",
    ),
    (
        "paths/ladder",
        "system calls that no crate has a safe face for, a file's mapping, rings shared with the kernel",
    ),
    (
        "paths/pagecache/sys",
        "calls that tell of pages and change where they are, and counted faults",
    ),
    (
        "paths/serve",
        "what a socket has not sent yet (TIOCOUTQ), and sending out of a file's mapping",
    ),
    (
        "lab/bench/af_packet",
        "the kernel's own path, by plain system calls",
    ),
];

/// All files of `src`, by their path in it.
fn sources() -> BTreeMap<String, String> {
    fn read(folder: &Path, at: &str, into: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("a folder of src") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            let place = match at {
                "" => name,
                at => format!("{at}/{name}"),
            };
            if entry.path().is_dir() {
                read(&entry.path(), &place, into);
            } else {
                into.insert(place, fs::read_to_string(entry.path()).expect("text"));
            }
        }
    }
    let mut all = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read(&root, "", &mut all);
    all
}

/// A file's path without its ending: `nic/intel/tx`; of a folder's `mod.rs` the folder.
fn stem(place: &str) -> &str {
    let stem = place.strip_suffix(".rs").unwrap_or(place);
    stem.strip_suffix("/mod").unwrap_or(stem)
}

/// The files that are in front of all rooms.
fn is_door(place: &str) -> bool {
    matches!(place, "lib.rs" | "main.rs")
}

/// The faults in what the files name. `plan` has the rooms from the bottom up.
fn check(plan: &[Room], files: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let known: BTreeSet<_> = plan.iter().map(|room| room.name).collect();
    for (index, room) in plan.iter().enumerate() {
        for name in room.knows {
            match plan[..index].iter().find(|below| below.name == *name) {
                None => wrong.push(format!(
                    "{} may know {name}: that is not below it",
                    room.name
                )),
                Some(other) if other.storey > room.storey => {
                    wrong.push(format!("{} may know {name}, a storey up", room.name));
                }
                Some(_) => {}
            }
        }
    }
    let parsed: BTreeMap<_, _> = files
        .iter()
        .map(|(place, text)| {
            let module: Vec<_> = match is_door(place) {
                true => Vec::new(),
                false => stem(place).split('/').collect(),
            };
            (place.as_str(), Source::new(text, &module))
        })
        .collect();
    // What the crate's root has of its own: macros, and what lib.rs takes out of the rooms.
    let mut root = BTreeMap::new();
    for (place, source) in &parsed {
        let room = place.split('/').next().map(stem).unwrap_or_default();
        root.extend(
            source
                .macros()
                .into_iter()
                .map(|name| (name.to_owned(), room.to_owned())),
        );
    }
    for line in files
        .get("lib.rs")
        .into_iter()
        .flat_map(|text| text.lines())
    {
        if let Some(path) = line.strip_prefix("pub use ") {
            let (room, names) = path.split_once("::").expect("a path");
            let names = names.split(|c: char| !c.is_alphanumeric() && c != '_');
            let names = names.filter(|name| !name.is_empty());
            root.extend(names.map(|name| (name.to_owned(), room.to_owned())));
        }
    }
    for (place, source) in &parsed {
        if is_door(place) {
            continue;
        }
        let here = place.split('/').next().map(stem).unwrap_or_default();
        let Some(room) = plan.iter().find(|room| room.name == here) else {
            wrong.push(format!("src/{place} is in no room of tests/layers.rs"));
            continue;
        };
        let mut told = BTreeSet::new();
        let module = stem(place).replace('/', "::");
        for path in source.paths() {
            let Some(first) = path.first() else {
                wrong.push(format!("src/{place} names the whole crate"));
                continue;
            };
            let first = root.get(first).unwrap_or(first).as_str();
            let path = path.join("::");
            let is_foreign = first != here && known.contains(first) && !room.knows.contains(&first);
            if is_foreign && told.insert(path.clone()) {
                wrong.push(format!(
                    "src/{place} names {path}, which {here} may not know"
                ));
            }
            for (one, other) in STRANGERS {
                let is_of = |what: &str, whose: &str| {
                    what.strip_prefix(whose)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                };
                if is_of(&module, one) && is_of(&path, other) && told.insert(path.clone()) {
                    wrong.push(format!(
                        "src/{place} names {path}: {one} does not know {other}"
                    ));
                }
            }
        }
    }
    for room in plan {
        let is_there = |place: &String| place.split('/').next().map(stem) == Some(room.name);
        if !files.keys().any(is_there) {
            wrong.push(format!("there is no room {} in src", room.name));
        }
    }
    wrong
}

/// The rows of the table in `text` whose header line is `header`.
fn rows<'a>(text: &'a str, header: &str) -> Vec<&'a str> {
    let lines = text
        .lines()
        .map(|line| line.trim_start_matches("//!").trim());
    let table = lines.skip_while(|line| *line != header).skip(2);
    table.take_while(|line| line.starts_with('|')).collect()
}

/// Says where two tables differ.
fn compare(place: &str, is: &[&str], should_be: &[String]) -> Vec<String> {
    let missing = should_be.iter().filter(|row| !is.contains(&row.as_str()));
    let missing = missing.map(|row| format!("{place} has no row {row}"));
    let strange = is
        .iter()
        .filter(|row| !should_be.iter().any(|other| other == *row));
    let strange =
        strange.map(|row| format!("{place} has a row that is not in tests/layers.rs: {row}"));
    missing.chain(strange).collect()
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn rooms_name_only_what_they_may_know() {
    report(&check(ROOMS, &sources()));
}

/// The command is anybody's, with drivers of their own: each of its devices is opened by the list of drivers that it
/// was given.
#[test]
fn the_command_opens_cards_by_its_list_of_drivers_only() {
    let past_the_list = [
        ".open(config",
        ".open(&config",
        "DeviceSpec::open",
        "open::start(",
    ];
    let (mut by_the_list, mut wrong) = (0, Vec::new());
    for (place, text) in sources() {
        if place.starts_with("cli/") || place.starts_with("lab/") {
            by_the_list += text.matches("drivers.open").count();
            let found = past_the_list.iter().filter(|words| text.contains(**words));
            wrong.extend(found.map(|words| format!("src/{place}: {words}")));
        }
    }
    report(&wrong);
    assert!(by_the_list > 10, "{by_the_list}");
}

#[test]
fn the_maps_are_the_table_of_rooms() {
    let files = sources();
    let contributing = include_str!("../CONTRIBUTING.md");
    let row = |room: &Room| {
        let knows = match room.knows {
            [] => "nothing".to_owned(),
            knows => format!("`{}`", knows.join("`, `")),
        };
        format!(
            "| {} | `{}` | {} | {knows} |",
            room.storey.name(),
            room.name,
            room.what
        )
    };
    let should_be: Vec<_> = ROOMS.iter().map(row).collect();
    let is = rows(
        contributing,
        "| storey | room | what it is for | what it may know |",
    );
    let mut wrong = compare("CONTRIBUTING.md", &is, &should_be);
    // Links lead to public rooms only.
    let library = &files["lib.rs"];
    let row = |room: &Room| {
        let is_public = library.contains(&format!("pub mod {};", room.name));
        let is_always_there =
            is_public && !library.contains(&format!(")]\npub mod {};", room.name));
        let name = match is_always_there {
            true => format!("[`{}`]", room.name),
            false => format!("`{}`", room.name),
        };
        format!("| {} | {name} | {} |", room.storey.name(), room.what)
    };
    let should_be: Vec<_> = ROOMS.iter().map(row).collect();
    let is = rows(library, "| storey | module | what it is for |");
    wrong.extend(compare("src/lib.rs", &is, &should_be));
    report(&wrong);
}

#[test]
fn a_room_has_no_use_for_the_words_of_those_above() {
    let mut wrong = Vec::new();
    for (place, text) in sources() {
        for (room, words) in FOREIGN_WORDS {
            let is_there = place.split('/').next().map(stem) == Some(room);
            let text = text.to_lowercase();
            let said = words
                .iter()
                .filter(|word| is_there && text.contains(**word));
            wrong.extend(said.map(|word| format!("src/{place} speaks of {word:?}")));
        }
    }
    report(&wrong);
}

/// Returns whether it has a long option of a command in it: `--force`.
fn names_an_option(text: &str) -> bool {
    text.match_indices("--").any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let is_word = before.is_some_and(|c| c == '-' || c.is_alphanumeric());
        !is_word && text[at + 2..].starts_with(|c: char| c.is_ascii_lowercase())
    })
}

#[test]
fn only_the_command_names_its_options() {
    let mut wrong = Vec::new();
    for (place, text) in sources() {
        // QEMU's own are no options of ours.
        if place.starts_with("cli/") || place.starts_with("backend/qtest/") {
            continue;
        }
        let source = Source::new(&text, &[]);
        let named = source.strings().filter(|text| names_an_option(text));
        wrong.extend(
            named.map(|text| format!("src/{place} names an option of the command: {text}")),
        );
    }
    report(&wrong);
    assert!(names_an_option("or force it with --force"));
    assert!(!names_an_option("one -- and -m, a--b or ---x"));
}

#[test]
fn unsafe_code_is_where_it_is_said_to_be() {
    let mut wrong = Vec::new();
    let mut empty: BTreeSet<_> = UNSAFE.iter().map(|(place, _)| *place).collect();
    for (place, text) in sources() {
        if !Source::new(&text, &[]).is_unsafe() {
            continue;
        }
        let is_in = |home: &&(&str, &str)| {
            stem(&place)
                .strip_prefix(home.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match UNSAFE.iter().find(is_in) {
            Some((home, _)) => drop(empty.remove(home)),
            None => wrong.push(format!(
                "src/{place} has unsafe code, and is not on the list"
            )),
        }
    }
    wrong.extend(
        empty
            .iter()
            .map(|place| format!("{place} is on the list, and has no unsafe code")),
    );
    let contributing = include_str!("../CONTRIBUTING.md");
    let row = |(place, what): &(&str, &str)| format!("| `{place}` | {what} |");
    let should_be: Vec<_> = UNSAFE.iter().map(row).collect();
    let is = rows(contributing, "| unsafe code in | what for |");
    wrong.extend(compare("CONTRIBUTING.md", &is, &should_be));
    let book = include_str!("../docs/src/ownership.md");
    let line = book
        .lines()
        .find(|line| line.contains("that its unsafe code is sound"));
    let line = line.expect("a row of the table of whom we trust");
    let named: BTreeSet<_> = line.split('`').skip(1).step_by(2).collect();
    let listed: BTreeSet<_> = UNSAFE.iter().map(|(place, _)| *place).collect();
    if named != listed {
        wrong.push(format!(
            "docs/src/ownership.md names {named:?}, and it is {listed:?}"
        ));
    }
    report(&wrong);
}

/// The faults in these files, by a plan of three rooms.
fn made_up(files: &[(&str, &str)]) -> Vec<String> {
    let plan = [
        room(Ground, "dma", "", &[]),
        room(Devices, "nic", "", &["dma"]),
        room(Riders, "net", "", &["nic"]),
    ];
    let rest = [("dma.rs", ""), ("nic.rs", ""), ("net.rs", "")];
    let all = rest.iter().chain(files);
    let files = all.map(|(place, text)| ((*place).to_owned(), (*text).to_owned()));
    check(&plan, &files.collect())
}

#[test]
fn an_arrow_upwards_is_found_however_it_is_written() {
    for upwards in [
        "use crate::nic::Frame;",
        "use crate::{nic::Frame, dma::Pool};",
        "use crate::{dma::{self, Pool}, nic as cards};",
        "use super::nic::{Frame, Mac};",
        "pub(crate) use super::super::dma::super::nic::Frame;",
        "mod tests { use super::super::nic::Frame; }",
        "mod tests { mod more { fn f() { super::super::super::nic::start() } } }",
        "fn f() -> crate::nic::Frame { todo!() }",
        "macro_rules! m { () => { $crate::nic::start() } }",
        "fn f() { println!(\"{}\", crate::nic::MTU) }",
        "fn f() { pinwire::nic::start() }",
        "use crate::Frame;",
        "use crate::card;",
    ] {
        let files = [
            ("dma.rs", upwards),
            ("nic.rs", "macro_rules! card { () => {} }"),
            ("lib.rs", "pub use nic::{Frame, Mac};"),
        ];
        let wrong = made_up(&files);
        let found = |wrong: &String| wrong.contains("which dma may not know");
        assert!(
            !wrong.is_empty() && wrong.iter().all(found),
            "{upwards}: {wrong:?}"
        );
    }
}

#[test]
fn what_goes_down_or_stays_is_right_and_comments_and_strings_name_nothing() {
    let files = [
        (
            "dma.rs",
            "/// See [`Nic`](crate::nic::Nic).\nfn f() -> &'static str { \"crate::nic\" } // crate::nic::x",
        ),
        (
            "dma/pool.rs",
            "use super::region::bytes; use crate::dma::Pool; use self::inner::Thing; mod inner {}",
        ),
        (
            "nic.rs",
            "use crate::dma::{Pool, chain::{self, Chain}}; mod tests { use super::*; }",
        ),
        (
            "net/echo.rs",
            "use super::packet::Packet; use crate::nic::Nic as Card;",
        ),
    ];
    assert_eq!(made_up(&files), Vec::<String>::new());
}

#[test]
fn a_file_without_a_room_and_a_room_without_a_file_are_found() {
    let wrong = made_up(&[("block/mod.rs", "use crate::dma::Pool;")]);
    assert_eq!(wrong, ["src/block/mod.rs is in no room of tests/layers.rs"]);
    let plan = [room(Ground, "dma", "", &[])];
    let wrong = check(&plan, &BTreeMap::new());
    assert_eq!(wrong, ["there is no room dma in src"]);
}

#[test]
fn a_plan_with_a_circle_or_an_arrow_upwards_is_refused() {
    let circle = [
        room(Ground, "dma", "", &["pci"]),
        room(Ground, "pci", "", &["dma"]),
    ];
    let upwards = [
        room(Riders, "net", "", &[]),
        room(Devices, "nic", "", &["net"]),
    ];
    for (plan, says) in [(circle, "not below it"), (upwards, "a storey up")] {
        let files = plan
            .iter()
            .map(|room| (format!("{}.rs", room.name), String::new()));
        let wrong = check(&plan, &files.collect());
        assert!(wrong.len() == 1 && wrong[0].contains(says), "{wrong:?}");
    }
}

#[test]
fn unsafe_code_is_found_and_the_word_alone_is_not() {
    let is_unsafe = |text| Source::new(text, &[]).is_unsafe();
    assert!(is_unsafe("fn f() { unsafe { g() } }"));
    assert!(is_unsafe("unsafe impl Send for T {}"));
    assert!(is_unsafe("macro_rules! m { () => { unsafe { g() } } }"));
    assert!(!is_unsafe(
        "/// unsafe\nfn f() { say(\"unsafe\") } // unsafe"
    ));
}
