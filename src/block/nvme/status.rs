//! The status field of a completion, §4.6.1: the type and code of what went wrong, by name.

use crate::block::{Failure, Reason};

/// The status field: code in bits 7:0, type in 10:8, retry delay in 12:11, more in 13, do not retry in 14.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    const DO_NOT_RETRY: u16 = 1 << 14;

    /// Type and code alone.
    pub fn code(self) -> u16 {
        self.0 & 0x7ff
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// The failure that it names.
    #[inline]
    pub fn result(self) -> Result<(), Failure> {
        match self.code() {
            0 => Ok(()),
            _ => Err(self.failure()),
        }
    }

    #[cold]
    #[inline(never)]
    fn failure(self) -> Failure {
        let code = self.code();
        let known = NAMES.iter().find(|(number, ..)| *number == code);
        let (_, name, reason) = *known.unwrap_or(&(code, "unknown status", Reason::Other));
        Failure {
            reason,
            code,
            name,
            is_final: self.0 & Self::DO_NOT_RETRY != 0,
        }
    }
}

/// Type and code, the specification's name in lower case, and the kind: figures 126 to 130.
const NAMES: &[(u16, &str, Reason)] = &[
    // Generic, §4.6.1.2.1
    (0x01, "invalid command opcode", Reason::Unsupported),
    (0x02, "invalid field in command", Reason::Unsupported),
    (0x03, "command ID conflict", Reason::Other),
    (0x04, "data transfer error", Reason::Other),
    (
        0x05,
        "aborted due to power loss notification",
        Reason::Aborted,
    ),
    (0x06, "internal error", Reason::Other),
    (0x07, "command abort requested", Reason::Aborted),
    (
        0x08,
        "aborted due to submission queue deletion",
        Reason::Aborted,
    ),
    (0x0b, "invalid namespace or format", Reason::Namespace),
    (0x0c, "command sequence error", Reason::Other),
    (0x13, "PRP offset invalid", Reason::Other),
    (0x15, "operation denied", Reason::ReadOnly),
    (0x1c, "sanitize failed", Reason::Other),
    (0x20, "namespace is write protected", Reason::ReadOnly),
    (0x80, "LBA out of range", Reason::OutOfRange),
    (0x81, "capacity exceeded", Reason::OutOfRange),
    (0x82, "namespace not ready", Reason::Namespace),
    // Command specific, §4.6.1.2.2
    (0x100, "completion queue invalid", Reason::Other),
    (0x101, "invalid queue identifier", Reason::Other),
    (0x102, "invalid queue size", Reason::Other),
    (0x103, "abort command limit exceeded", Reason::Other),
    (0x108, "invalid interrupt vector", Reason::Other),
    (0x109, "invalid log page", Reason::Unsupported),
    (0x10c, "invalid queue deletion", Reason::Other),
    (0x180, "conflicting attributes", Reason::Unsupported),
    (
        0x182,
        "attempted write to read only range",
        Reason::ReadOnly,
    ),
    // Media and data integrity, §4.6.1.2.3
    (0x280, "write fault", Reason::Medium),
    (0x281, "unrecovered read error", Reason::Medium),
    (0x282, "end-to-end guard check error", Reason::Medium),
    (0x285, "compare failure", Reason::Differs),
    (0x286, "access denied", Reason::ReadOnly),
    (
        0x287,
        "deallocated or unwritten logical block",
        Reason::Medium,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_its_name_and_kind() {
        assert_eq!(Status(0).result(), Ok(()));
        let failure = Status(0x4080).result().unwrap_err();
        assert_eq!(
            (failure.reason, failure.is_final),
            (Reason::OutOfRange, true)
        );
        assert_eq!(failure.to_string(), "LBA out of range (status 0x80)");
        let failure = Status(0x0285).result().unwrap_err();
        assert_eq!((failure.reason, failure.is_final), (Reason::Differs, false));
        assert_eq!(Status(0x7ff).result().unwrap_err().name, "unknown status");
    }

    #[test]
    fn names_are_in_order_and_named_once() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
    }
}
