//! The output of `show` for programs. Addresses and words of 64 bits are strings, since a JSON number cannot hold
//! them everywhere.

use serde_json::{Map, Value, json};

use crate::dma::Iova;
use crate::inspect::{
    FeatureView, Owner, PackedIndices, RegisterView, RingIndices, RingView, SlotView, SplitIndices,
};
use crate::mmio::Width;
use crate::nic::{Nic, Stats};

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
        "value": match info.width {
            Width::Eight => json!(hex(register.value)),
            _ => json!(register.value),
        },
        "section": info.section,
        "what": info.what,
        "fields": fields,
    })
}

/// A feature that was negotiated.
pub fn feature(feature: &FeatureView) -> Value {
    json!({
        "bit": feature.bit,
        "name": feature.name,
        "what": feature.what,
        "offered": feature.offered,
        "negotiated": feature.negotiated,
    })
}

/// A ring.
pub fn ring(ring: &RingView) -> Value {
    let slots: Vec<Value> = ring.slots.iter().map(slot).collect();
    let mut json = json!({
        "name": ring.name,
        "pair": ring.pair,
        "address": hex(ring.address as u64),
        "descriptors": slots,
    });
    match &ring.indices {
        RingIndices::Registers { head, tail } => {
            json["head"] = (*head).into();
            json["tail"] = (*tail).into();
        }
        RingIndices::Own { next, oldest } => {
            json["own"] = json!({ "next": next, "oldest": oldest })
        }
        RingIndices::Phase { head, phase } => {
            json["completions"] = json!({ "head": head, "phase": phase })
        }
        RingIndices::Split(indices) => json["split"] = split(indices),
        RingIndices::Packed(indices) => json["packed"] = packed(indices),
    }
    json
}

fn split(indices: &SplitIndices) -> Value {
    json!({
        "available": {
            "iova": hex(indices.avail_iova.0),
            "flags": indices.avail_flags,
            "idx": indices.avail_idx,
            "ring": indices.avail,
            "used_event": indices.used_event,
        },
        "used": {
            "iova": hex(indices.used_iova.0),
            "flags": indices.used_flags,
            "idx": indices.used_idx,
            "ring": indices.used,
            "avail_event": indices.avail_event,
        },
        "taken_back": indices.taken_idx,
    })
}

fn packed(indices: &PackedIndices) -> Value {
    let event = |iova: Iova, [desc, flags]: [u16; 2]| json!({ "iova": hex(iova.0), "desc": desc, "flags": flags });
    json!({
        "next_available": indices.next_avail,
        "driver_wrap_counter": indices.avail_wrap,
        "next_used": indices.next_used,
        "device_wrap_counter": indices.used_wrap,
        "driver_event": event(indices.driver_event_iova, indices.driver_event),
        "device_event": event(indices.device_event_iova, indices.device_event),
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
        "words": slot.words.iter().copied().map(hex).collect::<Vec<_>>(),
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
            "counted_by": stats.counted_by.to_string(),
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
