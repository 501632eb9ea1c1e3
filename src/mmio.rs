//! Registers: how a device's BAR is read and written, and how a register is declared.
//!
//! A [`Reg`] knows where it is, what its bits mean and what may be done with it, so that a driver
//! reads like its datasheet and a write to a read-only register does not compile. The same
//! declaration makes the table from which `pinwire show` and `--explain` name and decode registers.

use std::fmt::Debug;
use std::marker::PhantomData;

/// Number of bytes that one access moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    One = 1,
    /// 16 bits.
    Two = 2,
    /// 32 bits.
    Four = 4,
    /// 64 bits.
    Eight = 8,
}

impl Width {
    /// In bytes.
    pub const fn bytes(self) -> usize {
        self as usize
    }

    /// Value read from a device that is gone.
    pub const fn ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

/// The integer that a register's value converts from and into: `u32`, which also holds what is narrower, or `u64`.
pub trait Word: Copy + sealed::Sealed {
    /// The width of a register of this type.
    const WIDTH: Width;

    /// The low bits of `value`.
    fn cut(value: u64) -> Self;

    /// The value, with zeros above.
    fn widen(self) -> u64;
}

impl Word for u32 {
    const WIDTH: Width = Width::Four;

    #[inline(always)]
    fn cut(value: u64) -> Self {
        value as u32
    }

    #[inline(always)]
    fn widen(self) -> u64 {
        self.into()
    }
}

impl Word for u64 {
    const WIDTH: Width = Width::Eight;

    #[inline(always)]
    fn cut(value: u64) -> Self {
        value
    }

    #[inline(always)]
    fn widen(self) -> u64 {
        self
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// Place of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index of the BAR.
    pub bar: u8,
    /// Offset in bytes.
    pub offset: usize,
    /// Number of bytes.
    pub width: Width,
}

/// A mapped BAR, whatever reaches it.
///
/// A read of a device that is gone gives all ones, as the PCI bus does.
pub trait Mmio: Clone + Send {
    /// Length in bytes.
    fn size(&self) -> usize;

    /// Reads `width` bytes at `offset` (bytes, a multiple of the width).
    ///
    /// # Panics
    /// As [`Mmio::read32`].
    fn read(&self, offset: usize, width: Width) -> u64;

    /// Writes `width` bytes at `offset` (bytes, a multiple of the width); the rest of `value` is cut.
    ///
    /// # Panics
    /// As [`Mmio::read32`].
    fn write(&self, offset: usize, width: Width, value: u64);

    /// Reads 4 bytes at `offset` (bytes, a multiple of 4).
    ///
    /// # Panics
    /// If `offset` is outside the BAR: a driver's bug, never the device's doing.
    #[inline]
    fn read32(&self, offset: usize) -> u32 {
        self.read(offset, Width::Four) as u32
    }

    /// Writes 4 bytes at `offset` (bytes, a multiple of 4).
    ///
    /// # Panics
    /// As [`Mmio::read32`].
    #[inline]
    fn write32(&self, offset: usize, value: u32) {
        self.write(offset, Width::Four, value.into());
    }

    /// Reads a register.
    #[inline]
    fn get<T: From<W>, A: Readable, W: Word>(&self, reg: Reg<T, A, W>) -> T {
        T::from(W::cut(self.read(reg.offset, reg.width)))
    }

    /// Writes a register.
    #[inline]
    fn set<T: Into<W>, A: Writable, W: Word>(&self, reg: Reg<T, A, W>, value: T) {
        self.write(reg.offset, reg.width, value.into().widen());
    }

    /// Writes a register of 64 bits that takes two accesses of 32: the lower half, then the upper.
    #[inline]
    fn set_halves<A: Writable>(&self, halves: RegArray<u32, A>, value: u64) {
        self.set(halves.index(0), value as u32);
        self.set(halves.index(1), (value >> 32) as u32);
    }

    /// Reads a register, changes it, writes it back.
    #[inline]
    fn update<T: From<W> + Into<W>, A: Readable + Writable, W: Word>(
        &self,
        reg: Reg<T, A, W>,
        change: impl FnOnce(T) -> T,
    ) {
        self.set(reg, change(self.get(reg)));
    }
}

/// Access that may read.
pub trait Readable {}
/// Access that may write.
pub trait Writable {}

/// The datasheet's "RO".
#[derive(Debug)]
pub enum ReadOnly {}
/// The datasheet's "WO".
#[derive(Debug)]
pub enum WriteOnly {}
/// The datasheet's "RW".
#[derive(Debug)]
pub enum ReadWrite {}
/// The datasheet's "RC": reading clears it, so a tool must not read it behind the driver's back.
#[derive(Debug)]
pub enum ReadClear {}

impl Readable for ReadOnly {}
impl Readable for ReadWrite {}
impl Readable for ReadClear {}
impl Writable for WriteOnly {}
impl Writable for ReadWrite {}

/// Kind of access, as a value in [`RegInfo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    ReadOnly,
    /// Write only.
    WriteOnly,
    /// Read and write.
    ReadWrite,
    /// Read, which clears it.
    ReadClear,
}

/// One register: a `T`, made of a `W`, at an offset of a BAR.
pub struct Reg<T, A, W = u32> {
    offset: usize,
    width: Width,
    kind: PhantomData<Kind<T, A, W>>,
}

/// A value of this type owns none of them.
type Kind<T, A, W> = fn() -> (T, A, W);

impl<T, A, W> Clone for Reg<T, A, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, A, W> Copy for Reg<T, A, W> {}

impl<T, A, W> Debug for Reg<T, A, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reg({:#06x})", self.offset)
    }
}

impl<T, A, W: Word> Reg<T, A, W> {
    /// The register of a whole `W` at `offset` bytes.
    pub const fn at(offset: usize) -> Self {
        Self::of_width(offset, W::WIDTH)
    }

    /// The register of `width` at `offset` bytes.
    pub const fn of_width(offset: usize, width: Width) -> Self {
        assert!(offset.is_multiple_of(width.bytes()));
        assert!(width.bytes() <= W::WIDTH.bytes());
        Self {
            offset,
            width,
            kind: PhantomData,
        }
    }

    /// The same register of a structure that begins `base` bytes further on.
    pub const fn past(self, base: usize) -> Self {
        Self::of_width(base + self.offset, self.width)
    }

    /// Its width.
    pub const fn width(self) -> Width {
        self.width
    }

    /// Its offset in bytes.
    pub const fn offset(self) -> usize {
        self.offset
    }

    /// Offset behind its last byte.
    pub const fn end(self) -> usize {
        self.offset + self.width.bytes()
    }
}

/// `count` registers of one kind, `stride` bytes apart.
#[derive(Debug)]
pub struct RegArray<T, A, W = u32> {
    first: Reg<T, A, W>,
    count: usize,
    stride: usize,
}

impl<T, A, W: Word> RegArray<T, A, W> {
    /// `count` registers of a whole `W` from `offset` on, `stride` bytes apart.
    pub const fn at(offset: usize, count: usize, stride: usize) -> Self {
        Self::of_width(offset, W::WIDTH, count, stride)
    }

    /// `count` registers of `width` from `offset` on, `stride` bytes apart.
    pub const fn of_width(offset: usize, width: Width, count: usize, stride: usize) -> Self {
        assert!(stride.is_multiple_of(width.bytes()));
        Self {
            first: Reg::of_width(offset, width),
            count,
            stride,
        }
    }

    /// Number of registers.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Register `index` of the array.
    ///
    /// # Panics
    /// If there is none.
    pub const fn index(&self, index: usize) -> Reg<T, A, W> {
        assert!(index < self.count);
        Reg::of_width(self.first.offset + index * self.stride, self.first.width)
    }
}

/// Description of a register for people: made by [`registers!`](crate::registers).
#[derive(Debug, Clone, Copy)]
pub struct RegInfo {
    /// The datasheet's name.
    pub name: &'static str,
    /// Offset in bytes of the first (or only) one.
    pub offset: usize,
    /// Its width.
    pub width: Width,
    /// Number of registers, and bytes from one to the next; `(1, 4)` for a lone one.
    pub array: (usize, usize),
    /// Allowed access.
    pub access: Access,
    /// Section of the datasheet.
    pub section: &'static str,
    /// Its group: "transmit".
    pub group: &'static str,
    /// Description in a few words.
    pub what: &'static str,
    /// A value's fields, by name: those that are not zero.
    pub fields: fn(u64) -> Vec<(String, String)>,
}

impl RegInfo {
    /// Offset behind its last byte; of an array, behind the last one.
    pub const fn end(&self) -> usize {
        let (count, stride) = self.array;
        self.offset + (count - 1) * stride + self.width.bytes()
    }

    /// Bytes from the beginning of a BAR to the end of the last register of `table`: the least that a
    /// driver asks [`Backend::map_bar`](crate::backend::Backend::map_bar) for, so that no register of
    /// its own lies outside.
    ///
    /// ```
    /// use pinwire::mmio::RegInfo;
    /// use pinwire::nic::e1000::regs::{TABLE, VFTA};
    /// assert_eq!(RegInfo::size_of(TABLE), VFTA.index(127).end());
    /// ```
    pub const fn size_of(table: &[RegInfo]) -> usize {
        let (mut most, mut nth) = (0, 0);
        while nth < table.len() {
            let end = table[nth].end();
            if end > most {
                most = end;
            }
            nth += 1;
        }
        most
    }

    /// The register of `table` at `offset`, and which one of an array it is.
    pub fn find(table: &'static [RegInfo], offset: usize) -> Option<(&'static RegInfo, usize)> {
        table.iter().find_map(|info| {
            let (count, stride) = info.array;
            let past = offset.checked_sub(info.offset)?;
            let index = past.checked_div(stride)?;
            (past.is_multiple_of(stride) && index < count).then_some((info, index))
        })
    }
}

/// The fields of a bitfield that are not zero, by name, read from its `Debug` form
/// (`Name { field: value, .. }`); none where it has no fields.
pub fn fields<T: Debug>(value: T) -> Vec<(String, String)> {
    let text = format!("{value:?}");
    let Some((_, inside)) = text.split_once('{') else {
        return Vec::new();
    };
    inside
        .trim_end_matches('}')
        .split(", ")
        .filter_map(|field| field.split_once(": "))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(_, value)| value != "false" && value != "0")
        .collect()
}

/// Declares registers, one line each, by groups, and the table of them:
///
/// ```
/// use pinwire::mmio::{ReadOnly, ReadWrite};
/// pinwire::registers! {
///     /// All of the toy's registers.
///     pub TABLE;
///     in "general";
///     /// device control
///     CTRL: u32, ReadWrite, 0x0000, "13.4.1";
///     /// device status
///     STATUS: u32, ReadOnly, 0x0008, "13.4.2";
///     in "filters";
///     /// multicast table: 128 of them, 4 bytes apart
///     MTA[128, 4]: u32, ReadWrite, 0x5200, "13.5.1";
/// }
/// assert_eq!(MTA.index(1).offset(), 0x5204);
/// assert_eq!((TABLE[1].name, TABLE[1].group), ("STATUS", "general"));
/// ```
///
/// One of another width says it. The value of a narrower one is a `T` of 32 bits all the same; that of one of 64
/// bits is made of a `u64`:
///
/// ```
/// use pinwire::mmio::{Width, ReadWrite};
/// pinwire::registers! {
///     /// Common configuration.
///     pub TABLE;
///     in "device";
///     /// device status
///     STATUS: u32 as One, ReadWrite, 0x14, "4.1.4.3";
///     /// base address
///     BASE: u64 as Eight, ReadWrite, 0x20, "3.1.10";
/// }
/// assert_eq!((STATUS.width(), BASE.width()), (Width::One, Width::Eight));
/// ```
///
/// A register can only be used as it was declared:
///
/// ```compile_fail,E0277
/// # use pinwire::mmio::{Mmio, ReadOnly, Reg};
/// const STATUS: Reg<u32, ReadOnly> = Reg::at(8);
/// fn bad(bar: impl Mmio) {
///     bar.set(STATUS, 1);
/// }
/// ```
#[macro_export]
macro_rules! registers {
    ($(#[$table_doc:meta])* pub $table:ident;
     $(in $group:literal;
       $(#[doc = $what:literal] $name:ident $([$count:literal, $stride:literal])?: $type:ident $(as $width:ident)?, $access:ident, $offset:literal, $section:literal;)*)*) => {
        $($($crate::registers!(@one $what, $name $([$count, $stride])?, $type $(as $width)?, $access, $offset, $section);)*)*

        $(#[$table_doc])*
        pub const $table: &[$crate::mmio::RegInfo] = &[$($($crate::mmio::RegInfo {
            name: stringify!($name),
            offset: $offset,
            width: $crate::registers!(@width $($width)?),
            array: $crate::registers!(@array $([$count, $stride])?),
            access: $crate::mmio::Access::$access,
            section: $section,
            group: $group,
            what: $what.trim_ascii(),
            fields: |value| {
                let word = <$crate::registers!(@word $($width)?) as $crate::mmio::Word>::cut(value);
                $crate::mmio::fields(<$type>::from(word))
            },
        },)*)*];
    };
    (@one $what:literal, $name:ident, $type:ident $(as $width:ident)?, $access:ident, $offset:literal, $section:literal) => {
        #[doc = concat!($what, ", §", $section)]
        pub const $name: $crate::mmio::Reg<$type, $crate::mmio::$access, $crate::registers!(@word $($width)?)> =
            $crate::mmio::Reg::of_width($offset, $crate::registers!(@width $($width)?));
    };
    (@one $what:literal, $name:ident [$count:literal, $stride:literal], $type:ident $(as $width:ident)?, $access:ident, $offset:literal, $section:literal) => {
        #[doc = concat!($what, ", §", $section)]
        pub const $name: $crate::mmio::RegArray<$type, $crate::mmio::$access, $crate::registers!(@word $($width)?)> =
            $crate::mmio::RegArray::of_width($offset, $crate::registers!(@width $($width)?), $count, $stride);
    };
    (@width) => { $crate::mmio::Width::Four };
    (@width $width:ident) => { $crate::mmio::Width::$width };
    (@word) => { u32 };
    (@word Eight) => { u64 };
    (@word $width:ident) => { u32 };
    (@array) => { (1, 4) };
    (@array [$count:literal, $stride:literal]) => { ($count, $stride) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_names_what_is_set() {
        #[derive(Debug)]
        #[allow(dead_code)]
        struct Status {
            lu: bool,
            fd: bool,
            speed: u8,
        }
        let status = Status {
            lu: true,
            fd: false,
            speed: 2,
        };
        let expected = [("lu", "true"), ("speed", "2")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(fields(status), expected);
        assert!(fields(7u32).is_empty());
    }

    #[test]
    fn find_names_the_register_of_an_array() {
        crate::registers! {
            /// Two.
            pub TABLE;
            in "all";
            /// control
            CTRL: u32, ReadWrite, 0x0, "1";
            /// addresses
            RAL[4, 8]: u32, ReadWrite, 0x10, "2";
        }
        assert_eq!(CTRL.offset(), 0);
        assert_eq!(RAL.count(), 4);
        let (info, index) = RegInfo::find(TABLE, 0x18).unwrap();
        assert_eq!((info.name, index), ("RAL", 1));
        assert!(RegInfo::find(TABLE, 0x14).is_none());
        assert!(RegInfo::find(TABLE, 0x30).is_none());
    }
}
