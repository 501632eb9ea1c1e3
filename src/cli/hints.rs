//! Hints for errors of the library: it knows no options, and the command's may be the way on.

use crate::Error;

/// The line to be shown below `error`.
pub fn of(error: &Error) -> Option<String> {
    match error {
        Error::InUse { address, .. } => Some(format!(
            "if you mean it all the same: pinwire bind --force {address}"
        )),
        Error::DiskInUse { .. } => Some("not with --force either".to_owned()),
        Error::NotNetwork { address, .. } => {
            Some(format!("if you mean it: pinwire bind --force {address}"))
        }
        Error::NotPermitted { .. } => Some(
            "for good: the rule for udev in pinwire's source, contrib/70-pinwire-vfio.rules"
                .to_owned(),
        ),
        Error::BadCapture { why, .. } if why.contains("it is compressed") => {
            Some("without a file in between: ... | pinwire send ... --pcap -".to_owned())
        }
        Error::Timeout {
            what: "sending a batch",
            ..
        } => Some("look at it: pinwire show DEVICE --registers".to_owned()),
        Error::NoAnswer { .. } => Some("an Ethernet address is given with --via MAC".to_owned()),
        _ => None,
    }
}
