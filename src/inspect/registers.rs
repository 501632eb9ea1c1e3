//! All of a table's registers, read at one moment.

use super::RegisterView;
use crate::mmio::{Access, Mmio, RegInfo};

/// Reads all registers of `table` that reading does not change and that are inside of `bar`; of an
/// array, those that are not 0.
pub fn read_registers<M: Mmio>(bar: &M, table: &'static [RegInfo]) -> Vec<RegisterView> {
    let quiet = |info: &&RegInfo| {
        matches!(info.access, Access::ReadOnly | Access::ReadWrite) && info.end() <= bar.size()
    };
    let each = table.iter().filter(quiet).flat_map(|info| {
        let (count, stride) = info.array;
        (0..count).map(move |index| RegisterView {
            info,
            index,
            value: bar.read(info.offset + index * stride, info.width),
        })
    });
    each.filter(|view| view.info.array.0 == 1 || view.value != 0)
        .collect()
}
