//! QEMU's monitor (QMP): one JSON object a line, of which we need to know whether it is an error.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::error::{Error, Result};

/// Our end of the monitor's socket; first spoken to when it is first needed.
pub(super) struct Monitor {
    socket: BufReader<UnixStream>,
    greeted: bool,
}

impl Monitor {
    pub fn new(socket: UnixStream, bound: Duration) -> Result<Self> {
        socket
            .set_read_timeout(Some(bound))
            .and_then(|()| socket.set_write_timeout(Some(bound)))
            .map_err(|error| Error::io("limiting the time of QEMU's monitor", error))?;
        Ok(Self {
            socket: BufReader::new(socket),
            greeted: false,
        })
    }

    /// Runs `command`, a JSON object; with it goes the descriptor `fd`.
    ///
    /// # Errors
    /// QEMU's refusal; no answer.
    pub fn run(&mut self, command: &str, fd: Option<RawFd>) -> Result<(), String> {
        if !self.greeted {
            self.greeted = true;
            self.run(r#"{"execute": "qmp_capabilities"}"#, None)?;
        }
        let socket = self.socket.get_mut();
        let sent = match fd {
            Some(fd) => socket
                .send_with_fd(command.as_bytes(), fd)
                .map_err(|error| error.to_string())
                .map(drop),
            None => socket
                .write_all(command.as_bytes())
                .map_err(|error| error.to_string()),
        };
        sent.map_err(|error| format!("QEMU takes no commands: {error}"))?;
        loop {
            let mut line = String::new();
            match self.socket.read_line(&mut line) {
                Ok(1..) => {}
                Ok(0) => return Err("QEMU has ended".to_owned()),
                Err(error) => return Err(format!("QEMU does not answer: {error}")),
            }
            // The greeting and events come in between.
            if line.starts_with(r#"{"return""#) {
                return Ok(());
            }
            if line.starts_with(r#"{"error""#) {
                let words = line
                    .split_once(r#""desc": ""#)
                    .map_or(&*line, |(_, rest)| rest);
                return Err(words.trim_end_matches(['"', '}', '\r', '\n']).to_owned());
            }
        }
    }
}
