//! What `show` tells programs. Addresses and words of 64 bits are strings, since a JSON number
//! cannot hold them everywhere.

use pinwire::nic::{Nic, Owner, RegisterView, RingView, SlotView, Stats};
use serde_json::{Map, Value, json};

/// A register.
pub fn register(register: &RegisterView) -> Value {
    let info = register.info;
    let fields: Map<String, Value> = (info.fields)(register.value)
        .into_iter()
        .map(|(name, value)| {
            let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
            (name, value)
        })
        .collect();
    json!({
        "name": info.name,
        "index": register.index,
        "group": info.group,
        "offset": info.offset + register.index * info.array.1,
        "value": register.value,
        "section": info.section,
        "what": info.what,
        "fields": fields,
    })
}

/// A ring.
pub fn ring(ring: &RingView) -> Value {
    let slots: Vec<Value> = ring.slots.iter().map(slot).collect();
    json!({
        "name": ring.name,
        "address": hex(ring.address as u64),
        "head": ring.head,
        "tail": ring.tail,
        "descriptors": slots,
    })
}

fn slot(slot: &SlotView) -> Value {
    json!({
        "iova": hex(slot.iova.0),
        "owner": match slot.owner {
            Owner::Device => "device",
            Owner::Done => "done",
            Owner::Driver => "driver",
        },
        "words": slot.words.map(hex),
        "text": slot.text,
        "buffer": slot.buffer.map(|(iova, address, length)| json!({
            "iova": hex(iova.0),
            "address": hex(address as u64),
            "length": length,
        })),
    })
}

/// The card.
pub fn card(nic: &dyn Nic, stats: Stats) -> Map<String, Value> {
    let link = nic.link();
    let card = json!({
        "device": nic.name(),
        "model": nic.model(),
        "mac": nic.mac().to_string(),
        "link": { "up": link.up, "mbps": link.mbps, "full_duplex": link.full_duplex },
        "stats": {
            "tx_frames": stats.tx_frames,
            "tx_bytes": stats.tx_bytes,
            "rx_frames": stats.rx_frames,
            "rx_bytes": stats.rx_bytes,
            "rx_errors": stats.rx_errors,
            "rx_missed": stats.rx_missed,
        },
    });
    match card {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}
