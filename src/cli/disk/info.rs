//! `pinwire disk info`: what a disk says of itself.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::block::{Disk, Health};
use crate::cli::output::{grouped, summary};
use crate::error::Result;

/// For people.
pub fn text(disk: &mut dyn Disk) -> Result<String> {
    let health = disk.health()?;
    let limits = *disk.limits();
    let yes = |can: bool| if can { "yes" } else { "no" };
    let mut can: Vec<&str> = vec!["read", "write", "flush"];
    let optional = [
        (limits.write_zeroes, "write zeroes"),
        (limits.discard, "discard"),
        (limits.compare, "compare"),
        (limits.verify, "verify"),
        (limits.copy > 0, "copy"),
    ];
    can.extend(
        optional
            .iter()
            .filter(|(can, _)| *can)
            .map(|(_, name)| *name),
    );
    let mut text = format!("{}, {}\n\n", disk.name(), disk.model());
    for namespace in disk.namespaces() {
        let read_only = if namespace.is_read_only {
            ", read-only"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "namespace {}: {} blocks of {} bytes: {} bytes ({}){read_only}",
            namespace.id,
            grouped(namespace.blocks),
            namespace.block_size,
            grouped(namespace.bytes()),
            binary(namespace.bytes())
        );
    }
    if disk.namespaces().is_empty() {
        text += "no namespace that can be used\n";
    }
    let mut rows = vec![
        ("commands", can.join(", ")),
        (
            "one request",
            format!("up to {} bytes", grouped(limits.max_transfer as u64)),
        ),
        (
            "write cache",
            yes(limits.has_cache).to_owned()
                + if limits.has_cache {
                    ": a flush makes durable"
                } else {
                    ""
                },
        ),
        (
            "requests in flight",
            format!("up to {} a queue", disk.queue(0).depth()),
        ),
    ];
    if let Some(health) = health {
        rows.extend(health_rows(&health));
    }
    text.push('\n');
    text += &summary(&rows);
    Ok(text)
}

fn health_rows(health: &Health) -> Vec<(&'static str, String)> {
    let data = |units: u128| {
        // A unit is 1000 blocks of 512 bytes.
        binary(u64::try_from(units.saturating_mul(512_000)).unwrap_or(u64::MAX))
    };
    vec![
        (
            "health",
            match health.warnings {
                0 => "well".to_owned(),
                bits => format!("CRITICAL WARNING {bits:#04x}: {}", warnings(bits)),
            },
        ),
        (
            "temperature",
            format!("{} °C", i32::from(health.kelvin) - 273),
        ),
        (
            "spare",
            format!(
                "{} %, warns below {} %",
                health.spare, health.spare_threshold
            ),
        ),
        ("used up", format!("{} %", health.used)),
        ("read", data(health.units_read)),
        ("written", data(health.units_written)),
        (
            "power on",
            format!("{} h, {} times", health.power_on_hours, health.power_cycles),
        ),
        ("unsafe shutdowns", health.unsafe_shutdowns.to_string()),
        (
            "errors",
            format!(
                "{} of the medium, {} in its log",
                health.media_errors, health.error_entries
            ),
        ),
    ]
}

fn warnings(bits: u8) -> String {
    let names = [
        "spare is low",
        "temperature",
        "reliability is degraded",
        "read-only",
        "its volatile memory's backup failed",
        "its persistent memory region",
    ];
    let set = names
        .iter()
        .enumerate()
        .filter(|(bit, _)| bits >> bit & 1 != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

/// Bytes in the largest unit that leaves a number of one to four digits.
fn binary(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// For programs.
pub fn json(disk: &mut dyn Disk) -> Result<Value> {
    let health = disk.health()?;
    let limits = disk.limits();
    let namespaces: Vec<Value> = disk
        .namespaces()
        .iter()
        .map(|one| {
            json!({
                "id": one.id,
                "block_size": one.block_size,
                "blocks": one.blocks,
                "bytes": one.bytes(),
                "read_only": one.is_read_only,
            })
        })
        .collect();
    Ok(json!({
        "device": disk.name(),
        "model": disk.model(),
        "namespaces": namespaces,
        "max_transfer": limits.max_transfer,
        "depth": disk.queue(0).depth(),
        "volatile_cache": limits.has_cache,
        "write_zeroes": limits.write_zeroes,
        "discard": limits.discard,
        "compare": limits.compare,
        "verify": limits.verify,
        "copy_blocks": limits.copy,
        "health": health.map(|health| json!({
            "warnings": health.warnings,
            "kelvin": health.kelvin,
            "spare_percent": health.spare,
            "spare_threshold_percent": health.spare_threshold,
            "used_percent": health.used,
            "units_read": health.units_read.to_string(),
            "units_written": health.units_written.to_string(),
            "power_cycles": health.power_cycles.to_string(),
            "power_on_hours": health.power_on_hours.to_string(),
            "unsafe_shutdowns": health.unsafe_shutdowns.to_string(),
            "media_errors": health.media_errors.to_string(),
            "error_entries": health.error_entries.to_string(),
        })),
    }))
}
