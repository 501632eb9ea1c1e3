//! `--list`: the rungs, and what a payload byte goes through on each.

use comfy_table::Table;
use pinwire::ladder::{Carrier, Hop, Kind, Place, Protocol, RUNGS, Rung};
use serde_json::{Value, json};

use crate::cli::bench::LINES;

/// Where a payload begins. Streams to be relayed come from a helper of ours, by loopback.
pub fn begin(kind: Kind) -> &'static str {
    match kind {
        Kind::Send | Kind::Copy => "disk",
        Kind::Relay | Kind::Log => "feeder",
    }
}

/// What a place is called.
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

/// How many of its stretches this one carries.
fn carried(rung: &Rung, by: Carrier) -> usize {
    rung.hops.iter().filter(|hop| hop.by == by).count()
}

/// The way of a byte: `disk ⇒ page cache → user → socket ⇒ card`.
fn way(rung: &Rung) -> String {
    let step = |Hop { by, to }: &Hop| {
        let arrow = match by {
            Carrier::Dma => "⇒",
            Carrier::Cpu => "→",
            Carrier::Reference => "·",
        };
        format!(" {arrow} {}", place(*to))
    };
    let steps: String = rung.hops.iter().map(step).collect();
    format!("{}{steps}", begin(rung.kind))
}

/// For people.
pub fn table() -> String {
    let mut table = Table::new();
    table
        .load_style(LINES)
        .set_header(["", "rung", "over", "copies", "the way of a byte"]);
    for rung in RUNGS {
        let over: Vec<_> = rung.over.iter().map(Protocol::to_string).collect();
        table.add_row([
            rung.number.to_string(),
            rung.name.to_owned(),
            over.join(", "),
            carried(rung, Carrier::Cpu).to_string(),
            way(rung),
        ]);
        if let Some(why) = (rung.missing)() {
            table.add_row(["", "", "", "", &format!("not available: {why}")]);
        }
    }
    format!(
        "{}\n→ the processor copies it; ⇒ a device moves it (DMA); · it stays, a reference goes on\n\
         feeder: another program on this machine, by loopback; what it copies is not counted",
        table.trim_fmt()
    )
}

/// For programs.
pub fn json() -> Value {
    let rung = |rung: &Rung| {
        let why = (rung.missing)();
        json!({
            "number": rung.number,
            "name": rung.name,
            "kind": kind(rung.kind),
            "over": rung.over.iter().map(|over| protocol(*over)).collect::<Vec<_>>(),
            "copies": carried(rung, Carrier::Cpu),
            "dma": carried(rung, Carrier::Dma),
            "way": way(rung),
            "available": why.is_none(),
            "why": why,
        })
    };
    json!({ "rungs": RUNGS.iter().map(rung).collect::<Vec<_>>() })
}
