//! Registers for people: by groups, with name, offset, value, and the fields that are set.

use comfy_table::{Cell, Row};

use super::paint::{Ink, Paint};
use crate::inspect::RegisterView;
use crate::mmio::{Access, RegInfo};

/// Columns from which on the fields have one of their own.
const WIDE: u16 = 110;

/// The registers of `table` that were read, as text.
pub fn draw(table: &[RegInfo], registers: &[RegisterView], paint: Paint) -> String {
    let mut groups: Vec<&str> = Vec::new();
    for register in registers {
        if !groups.contains(&register.info.group) {
            groups.push(register.info.group);
        }
    }
    let wide = paint.width >= WIDE;
    let header = ["register", "offset", "value", "what it is", "fields set"];
    let mut drawn = match wide {
        true => paint.table(&header),
        false => paint.table(&header[..4]),
    };
    for group in groups {
        drawn.add_row([Ink::Title.cell(group)]);
        for register in registers.iter().filter(|r| r.info.group == group) {
            drawn.add_row(row(register, wide));
        }
    }
    let rest: Vec<_> = rest(table, registers)
        .iter()
        .map(|line| paint.fold(line, 0, 2))
        .collect();
    let rest = paint.ink(Ink::Quiet, &rest.join("\n"));
    format!("{}\n\n{rest}\n", drawn.trim_fmt())
}

fn row(register: &RegisterView, wide: bool) -> Row {
    let RegisterView { info, index, value } = register;
    let name = match info.array.0 {
        1 => format!("  {}", info.name),
        _ => format!("  {}[{index}]", info.name),
    };
    let offset = info.offset + index * info.array.1;
    let digits = 2 * info.width.bytes();
    let hex = format!("{value:0digits$x}");
    let mut row = vec![
        Cell::new(name),
        Ink::Quiet.cell(format!("{offset:04x}")),
        match value {
            0 => Ink::Quiet.cell(hex),
            _ => Cell::new(hex),
        },
    ];
    let what = format!("{}, §{}", info.what, info.section);
    let fields = fields(register);
    match (wide, fields.is_empty()) {
        (true, _) => row.extend([Cell::new(what), Cell::new(fields)]),
        (false, true) => row.push(Cell::new(what)),
        (false, false) => row.push(Cell::new(format!("{what}\n→ {fields}"))),
    }
    Row::from(row)
}

/// The fields that are set; of a plain number, what it is in decimal.
fn fields(register: &RegisterView) -> String {
    let fields: Vec<String> = (register.info.fields)(register.value)
        .into_iter()
        .map(|(name, value)| match value.as_str() {
            "true" => name,
            _ => format!("{name}={value}"),
        })
        .collect();
    match register.value {
        10..0x1_0000 if fields.is_empty() => format!("= {}", register.value),
        _ => fields.join(" "),
    }
}

/// The registers of `table` that are not among `registers`, and the reason.
fn rest(table: &[RegInfo], registers: &[RegisterView]) -> Vec<String> {
    let missing = |of: &[Access]| -> Vec<&str> {
        let shown = |info: &RegInfo| registers.iter().any(|r| r.info.name == info.name);
        let missing = table
            .iter()
            .filter(|info| of.contains(&info.access) && !shown(info));
        missing.map(|info| info.name).collect()
    };
    let mut lines = Vec::new();
    match missing(&[Access::ReadOnly, Access::ReadWrite]).as_slice() {
        [] => {}
        zero => lines.push(format!("all zero: {}", zero.join(", "))),
    }
    match missing(&[Access::ReadClear]).as_slice() {
        [] => {}
        [only] => lines.push(format!("not read: {only}, which reading would clear")),
        [first, rest @ ..] => lines.push(format!(
            "not read: {first} and {} others, which reading would clear",
            rest.len()
        )),
    }
    match missing(&[Access::WriteOnly]).as_slice() {
        [] => {}
        names => lines.push(format!("not readable: {}", names.join(", "))),
    }
    lines
}
