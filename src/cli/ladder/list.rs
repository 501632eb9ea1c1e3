//! `--list`: the rungs, and what a payload byte goes through on each.

use comfy_table::Table;
use serde_json::{Value, json};

use super::way::Way;
use crate::cli::bench::LINES;
use crate::paths::ladder::{Carrier, Kind, Place, Protocol, RUNGS, Rung};

/// Returns the name of a place.
pub fn place(place: Place) -> &'static str {
    match place {
        Place::PageCache => "page cache",
        Place::User => "user",
        Place::Pipe => "pipe",
        Place::Socket => "socket",
        Place::Ring => "ring",
        Place::Pinned => "pinned",
        Place::Card => "card",
        Place::OtherFile => "other file",
    }
}

/// The name of a kind, for programs.
pub fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Send => "send",
        Kind::Relay => "relay",
        Kind::Log => "log",
        Kind::Copy => "copy",
    }
}

/// The name of a protocol, for programs.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Disk => "disk",
    }
}

/// Returns the rungs as a table, for people.
pub fn table() -> String {
    let mut table = Table::new();
    table
        .load_style(LINES)
        .set_header(["", "rung", "over", "copies", "the way of a byte"]);
    for rung in RUNGS {
        let over: Vec<_> = rung.over.iter().map(Protocol::to_string).collect();
        let way = Way::promised(rung);
        table.add_row([
            rung.number.to_string(),
            rung.name.to_owned(),
            over.join(", "),
            way.copies().to_string(),
            way.to_string(),
        ]);
        if let Some(why) = (rung.missing)() {
            table.add_row(["", "", "", "", &format!("not available: {why}")]);
        }
    }
    format!(
        "{}\n→ the processor copies it; ⇒ a device moves it (DMA); · it stays, a reference goes on\n\
         feeder: another program on this machine, by loopback; what it copies is not counted\n\
         That is what a rung promises. Some kernels and cards copy after all: a run counts, and shows what it saw",
        table.trim_fmt()
    )
}

/// Returns the rungs as JSON, for programs.
pub fn json() -> Value {
    let rung = |rung: &Rung| {
        let (why, way) = ((rung.missing)(), Way::promised(rung));
        json!({
            "number": rung.number,
            "name": rung.name,
            "kind": kind(rung.kind),
            "over": rung.over.iter().map(|over| protocol(*over)).collect::<Vec<_>>(),
            "copies": way.copies(),
            "dma": way.carried(Carrier::Dma),
            "way": way.to_string(),
            "available": why.is_none(),
            "why": why,
        })
    };
    json!({ "rungs": RUNGS.iter().map(rung).collect::<Vec<_>>() })
}
