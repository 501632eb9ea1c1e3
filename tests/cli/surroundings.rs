//! Where /sys, /proc or descriptors are missing, every command does its work or says what to type.

use std::process::{Command, Output, Stdio};

use crate::common;

const PINWIRE: &str = env!("CARGO_BIN_EXE_pinwire");

/// Every command that takes DEVICE, to be put in its place, and its other arguments.
const OF_A_DEVICE: [&str; 9] = [
    "send DEVICE --synthetic 64 --count 1",
    "send DEVICE --file Cargo.toml --to 192.0.2.1:9 --via 02:00:00:00:00:01",
    "recv DEVICE --seconds 0.1",
    "echo DEVICE --address 192.0.2.2 --seconds 0.1",
    "ping DEVICE 192.0.2.1 --from 192.0.2.2 --count 1 --timeout 0.1",
    "stats DEVICE",
    "show DEVICE",
    "bench DEVICE tx --seconds 0.1 --rounds 1",
    "forward DEVICE DEVICE --seconds 0.1",
];
const OF_A_FILE: [&str; 2] = [
    "pagecache Cargo.toml",
    "ladder Cargo.toml --loopback --only 1 --rounds 1",
];

/// Runs `pinwire` in new namespaces after `script`; nothing where such are not to be had.
fn run(script: &str, arguments: &str) -> Option<Output> {
    let script = format!("{script} && echo ready && exec \"$@\"");
    let output = Command::new("timeout")
        .args([
            "60",
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "bash",
            "-c",
            &script,
            "bash",
            PINWIRE,
        ])
        .args(arguments.split(' '))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    if output.stdout.starts_with(b"ready\n") {
        return Some(output);
    }
    common::not_run(&format!(
        "it needs unshare --user: {script}\n{}",
        String::from_utf8_lossy(&output.stderr)
    ));
    None
}

/// Each of `commands` goes well, or its error says what to type.
fn each_says(
    script: &str,
    commands: impl IntoIterator<Item = String>,
    remedy: &str,
    may_go_well: bool,
) {
    let mut wrong = String::new();
    for command in commands {
        let Some(output) = run(script, &command) else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let good = match output.status.success() {
            true => may_go_well,
            false => output.status.code() == Some(1) && said.contains(remedy),
        };
        if !good {
            wrong += &format!(
                "{command}: {}, without {remedy:?}:\n{said}\n",
                output.status
            );
        }
    }
    assert!(wrong.is_empty(), "{script}\n{wrong}");
}

fn of(device: &str) -> impl Iterator<Item = String> {
    OF_A_DEVICE
        .iter()
        .map(move |command| command.replace("DEVICE", device))
}

#[test]
fn without_sys_every_command_for_a_card_says_to_mount_it() {
    let others = ["list", "bind 0000:00:03.0", "unbind 0000:00:03.0"];
    let commands = of("0000:00:03.0").chain(others.map(str::to_owned));
    each_says(
        "mount -t tmpfs none /sys",
        commands,
        "sudo mount -t sysfs none /sys",
        false,
    );
}

#[test]
fn without_proc_every_command_goes_on_or_says_to_mount_it() {
    if !common::require_qemu() {
        return;
    }
    let script = "mount -t tmpfs none /proc";
    each_says(
        script,
        of("qtest:e1000"),
        "sudo mount -t proc none /proc",
        false,
    );
    each_says(
        script,
        OF_A_FILE.map(str::to_owned),
        "sudo mount -t proc none /proc",
        true,
    );
}

#[test]
fn without_descriptors_every_command_goes_on_or_says_to_raise_the_limit() {
    if !common::require_qemu() {
        return;
    }
    let files = OF_A_FILE.into_iter().chain(["list", "serve . --port 0"]);
    let commands: Vec<_> = of("qtest:e1000").chain(files.map(str::to_owned)).collect();
    each_says("ulimit -n 6", commands, "ulimit -n", true);
    // At whatever step they run out.
    for limit in 7..40 {
        let command = ["send qtest:e1000 --synthetic 64 --count 1".to_owned()];
        each_says(&format!("ulimit -n {limit}"), command, "ulimit -n", true);
    }
}
