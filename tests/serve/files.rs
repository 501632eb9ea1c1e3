//! Files that are not as files mostly are: empty, as long as can be, of a length that somebody made up, no
//! files at all, or very many. Each method sends the same bytes of them.

use super::*;

#[test]
fn every_form_of_a_range_is_answered_on_files_of_0_and_1_bytes_and_on_the_longest() {
    let site = Site::new();
    for size in [0, 1] {
        site.file(&size.to_string(), size);
    }
    // Where a disk's filesystem has no file of that length, memory has.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let longest = File::create(memory.path().join("longest")).unwrap();
    longest.set_len(i64::MAX as u64).unwrap();
    longest
        .write_all_at(b"the end", i64::MAX as u64 - 7)
        .unwrap();
    each_method(|method| {
        for folder in [&site.path(), memory.path()] {
            let server = Server::of(&[], folder, method, &[]);
            server.shows("short_ranges", &[text(folder)]);
            assert_eq!(server.end()["cut_short"], 0, "{method}");
        }
    });
}

#[test]
fn a_time_of_change_in_the_future_is_told_as_now_and_proves_nothing() {
    let site = Site::new();
    let server = Server::new(&site, "sendfile", &[]);
    server.shows("future", &["small", text(&site.path().join("small"))]);
}

#[test]
fn a_folder_of_20_000_names_is_listed_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..20_000 {
        File::create(
            folder
                .path()
                .join(format!("file-{}", number * 7919 % 20_000)),
        )
        .unwrap();
    }
    let server = Server::of(&[], folder.path(), "sendfile", &[]);
    server.shows("whole_listing", &[text(folder.path())]);
}

#[test]
fn a_listing_leads_to_nothing_that_is_refused_and_tells_sizes_and_dates() {
    let site = Site::new();
    let sub = site.path().join("sub");
    let at = |name: &str| sub.join(name);
    fs::create_dir_all(at("folder")).unwrap();
    fs::write(at("plain"), vec![b'x'; 12_345]).unwrap();
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
    let plain = File::options().write(true).open(at("plain")).unwrap();
    plain.set_modified(then).unwrap();
    fs::write(sub.join(OsStr::from_bytes(b"not \xff utf-8 <&\"'>")), "x").unwrap();
    for (link, target) in [
        ("in", "plain"),
        ("in-folder", "folder"),
        ("in-up", "../small"),
        ("out", "../../secret"),
        ("out-folder", "../.."),
        ("out-absolute", "/etc/passwd"),
        ("nowhere", "nothing"),
        ("round", "round"),
        ("to-fifo", "fifo"),
        ("to-socket", "socket"),
    ] {
        symlink(target, at(link)).unwrap();
    }
    let made = Command::new("mkfifo").arg(at("fifo")).status();
    assert!(made.unwrap().success());
    drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
    let mut left_out = vec![
        "out",
        "out-folder",
        "out-absolute",
        "nowhere",
        "round",
        "fifo",
        "socket",
        "to-fifo",
        "to-socket",
    ];
    if rustix::process::geteuid().is_root() {
        let made = Command::new("mknod")
            .arg(at("device"))
            .args(["c", "1", "3"])
            .status();
        assert!(made.unwrap().success());
        left_out.push("device");
    } else {
        for denied in ["denied", "denied-folder"] {
            fs::create_dir(at(denied)).unwrap();
            fs::set_permissions(at(denied), fs::Permissions::from_mode(0o0)).unwrap();
            left_out.push(denied);
        }
    }
    let server = Server::new(&site, "sendfile", &[]);
    let sub = text(&sub).to_owned();
    let arguments: Vec<_> = [sub.as_str()]
        .into_iter()
        .chain(left_out.iter().copied())
        .collect();
    server.shows("listed_is_served", &arguments);
    if has_strace() {
        // Without openat2 no link is followed, and so none is listed.
        let server = Server::under(&meddling("openat2", "error=ENOSYS"), &site, "sendfile", &[]);
        let links = ["in", "in-folder", "in-up"];
        let arguments: Vec<_> = arguments.iter().copied().chain(links).collect();
        server.shows("listed_is_served", &arguments);
    }
}

#[test]
fn a_file_whose_length_is_made_up_is_sent_as_a_read_finds_it() {
    each_method(|method| {
        for (folder, names) in [
            // 4096 bytes, says sysfs.
            (
                "/sys/devices/virtual/net/lo",
                &["mtu", "address", "operstate", "statistics/rx_bytes"][..],
            ),
            ("/sys/kernel/mm/transparent_hugepage", &["enabled"]),
            // None, says proc.
            ("/proc/sys/kernel", &["ostype", "osrelease", "pid_max"]),
            (
                "/proc",
                &["version", "self/status", "cpuinfo", "filesystems"],
            ),
        ] {
            if !Path::new(folder).exists() {
                common::not_run(&format!("part of it: there is no {folder}"));
                continue;
            }
            let server = Server::of(&[], Path::new(folder), method, &[]);
            let arguments: Vec<_> = [folder].into_iter().chain(names.iter().copied()).collect();
            server.shows("made_up_lengths", &arguments);
            assert_eq!(server.end()["cut_short"], 0, "{method}");
        }
    });
}

#[test]
fn a_file_that_is_too_long_to_be_measured_first_comes_in_chunks() {
    let symbols = Path::new("/proc/kallsyms");
    if fs::read(symbols).map_or(0, |symbols| symbols.len()) < 1 << 20 {
        common::not_run("this kernel has no long /proc/kallsyms");
        return;
    }
    each_method(|method| {
        let server = Server::of(&[], Path::new("/proc"), method, &[]);
        server.shows("read_in_chunks", &["kallsyms", text(symbols)]);
        assert_eq!(server.end()["cut_short"], 0, "{method}");
    });
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_with_a_status() {
    each_method(|method| {
        let server = Server::of(&[], Path::new("/proc"), method, &[]);
        // Its first page is mapped nowhere.
        server.shows("refused_by_the_kernel", &["self/mem"]);
        assert_eq!(server.end()["cut_short"], 0, "{method}");
    });
}

#[test]
fn fifos_sockets_and_devices_are_refused_at_once() {
    let site = Site::new();
    let at = |name: &str| site.path().join(name);
    for fifo in ["fifo", "written"] {
        let made = Command::new("mkfifo").arg(at(fifo)).status();
        assert!(made.unwrap().success());
    }
    let held = File::options()
        .read(true)
        .write(true)
        .open(at("written"))
        .unwrap();
    (&held).write_all(b"somebody's").unwrap();
    drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
    symlink("fifo", at("to-fifo")).unwrap();
    each_method(|method| {
        let server = Server::new(&site, method, &["--workers", "1"]);
        server.shows(
            "fifos_and_sockets",
            &["fifo", "written", "socket", "to-fifo"],
        );
    });
    let mut left = [0; 20];
    let read = rustix::io::read(&held, &mut left).unwrap();
    assert_eq!(&left[..read], b"somebody's", "nothing of it was taken");
}

#[test]
fn a_filesystem_that_a_method_does_not_know_is_read() {
    if !rustix::process::geteuid().is_root() {
        common::not_run("only root may mount a hugetlbfs");
        return;
    }
    each_method(|method| {
        let top = tempfile::tempdir().unwrap();
        // A hole takes no huge page. It cannot be mapped without, and it can never be spliced.
        let script = "mount -t hugetlbfs none \"$0\" && truncate -s 2M \"$0/huge\" && exec \"$@\"";
        let by = ["unshare", "-m", "sh", "-c", script, text(top.path())].map(str::to_owned);
        let tried = Command::new(&by[0])
            .args(&by[1..])
            .arg("true")
            .output()
            .unwrap();
        if !tried.status.success() {
            common::not_run(&format!(
                "no hugetlbfs: {}",
                String::from_utf8_lossy(&tried.stderr)
            ));
            return;
        }
        let server = Server::of(&by, top.path(), method, &[]);
        server.shows("zeros", &["huge", "2097152"]);
        assert_eq!(server.end()["cut_short"], 0, "{method}");
    });
}

#[test]
fn every_form_of_a_target_is_answered() {
    let site = Site::new();
    let server = Server::new(&site, "sendfile", &[]);
    server.shows("targets", &["small", text(&site.path().join("small"))]);
    for seed in ["1", "2"] {
        server.shows("random_targets", &[SECRET, seed]);
    }
}
