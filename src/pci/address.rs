//! An address as people write it.

use std::str::FromStr;

use crate::address::Address;
use crate::error::Error;

impl FromStr for Address {
    type Err = Error;

    fn from_str(spec: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::BadDevice {
            spec: spec.to_owned(),
            why: why.to_owned(),
        };
        let hex = |digits: &str, most: usize, max: u16, what: &str| {
            let plain = !digits.is_empty()
                && digits.len() <= most
                && digits.bytes().all(|b| b.is_ascii_hexdigit());
            u16::from_str_radix(digits, 16)
                .ok()
                .filter(|value| plain && *value <= max)
                .ok_or_else(|| bad(&format!("{what} must be hexadecimal, 0 to {max:x}")))
        };
        let (rest, function) = spec
            .rsplit_once('.')
            .ok_or_else(|| bad("no '.' before the function number"))?;
        let (rest, device) = rest
            .rsplit_once(':')
            .ok_or_else(|| bad("no ':' between bus and device"))?;
        let (domain, bus) = rest.split_once(':').unwrap_or(("0", rest));
        Ok(Self {
            domain: hex(domain, 4, 0xffff, "the domain")?,
            bus: hex(bus, 2, 0xff, "the bus")? as u8,
            device: hex(device, 2, 0x1f, "the device")? as u8,
            function: hex(function, 1, 7, "the function")? as u8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_with_and_without_the_domain() {
        let expected = Address {
            domain: 0,
            bus: 0,
            device: 3,
            function: 0,
        };
        assert_eq!("0000:00:03.0".parse::<Address>().unwrap(), expected);
        assert_eq!("00:03.0".parse::<Address>().unwrap(), expected);
        assert_eq!(expected.to_string(), "0000:00:03.0");
    }

    #[test]
    fn refuses_what_is_no_address() {
        for bad in [
            "",
            "eth0",
            "00:03",
            "00.0",
            "00:20.0",
            "00:03.8",
            "0:0:0:0.0",
            "00000:00:03.0",
            "00:+3.0",
            "0000:00:03.0 ",
            "00:03.00",
        ] {
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("0000:00:03.0"), "{bad}: {error}");
        }
    }
}
