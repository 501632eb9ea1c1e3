//! Filesystems that are not what they are called: what is said of a disk is true, or not said. Each is mounted
//! where nobody else sees it.

use super::*;

/// Runs a script with mounts of its own. Nothing where this user may not mount.
fn with_mounts(folder: &Path, script: &str) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        cannot("only root may mount");
        return None;
    }
    if File::open("/proc/kpageflags").is_err() {
        cannot("this kernel has no /proc/kpageflags");
        return None;
    }
    let output = Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-ec",
            script,
            env!("CARGO_BIN_EXE_pinwire"),
        ])
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    Some(text)
}

/// What a script printed between `== NAME` and the next such line.
fn part<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, rest) = text
        .split_once(&format!("== {name}\n"))
        .unwrap_or_else(|| panic!("{name}: {text}"));
    rest.split_once("== ").map_or(rest, |(part, _)| part)
}

fn value(text: &str, name: &str) -> Value {
    let part = part(text, name);
    serde_json::from_str(part).unwrap_or_else(|error| panic!("{name}: {error}: {part}"))
}

/// What nobody may say of a file without a disk.
fn says_nothing_of_a_disk(text: &str) {
    for word in [
        "on the disk",
        "for the disk",
        "to the disk",
        "(miss)",
        " D ",
        "DDD",
    ] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    assert!(text.contains("this file has no disk"), "{text}");
}

const FIVE_PAGES: &str = "head -c 20000 /dev/urandom";

#[test]
fn an_overlay_over_memory_has_its_pages_and_no_disk() {
    let folder = folder();
    let script = r#"
        mkdir t o; mount -t tmpfs none t; mkdir t/low t/up t/work
        FIVE >t/low/low
        mount -t overlay none -o lowerdir=t/low,upperdir=t/up,workdir=t/work o
        FIVE >o/up
        for file in low up; do
            echo "== $file"; "$0" pagecache o/$file
            echo "== $file flags"; "$0" pagecache o/$file --flags
            echo "== $file json"; "$0" pagecache o/$file --json
            echo "== $file sync"; "$0" pagecache o/$file --sync --offset 4096 --evict
        done
    "#;
    let Some(text) = with_mounts(folder.path(), &script.replace("FIVE", FIVE_PAGES)) else {
        return;
    };
    for file in ["low", "up"] {
        for how in ["", " flags", " sync"] {
            says_nothing_of_a_disk(part(&text, &format!("{file}{how}")));
        }
        let look = value(&text, &format!("{file} json"));
        assert_eq!(
            (&look["resident"], &look["dirty"]),
            (&5.into(), &0.into()),
            "{look}"
        );
        assert_eq!(
            (&look["backing"], &look["filesystem"]),
            (&"memory".into(), &"overlay".into())
        );
        let sync = part(&text, &format!("{file} sync"));
        assert!(
            sync.contains("4 stayed: there is no disk to read them from again"),
            "{sync}"
        );
    }
}

#[test]
fn an_overlay_over_a_disk_has_the_pages_of_the_file_below_and_tells_what_is_dirty() {
    let folder = folder();
    let script = r#"
        mkdir low up work o; mount -t overlay none -o lowerdir=low,upperdir=up,workdir=work o
        FIVE >o/file; sync; "$0" pagecache o/file --evict >&2
        echo "== cold"; "$0" pagecache o/file --json
        dd if=o/file of=/dev/null bs=4096 count=5 2>/dev/null
        echo "== warm"; "$0" pagecache o/file --json
        echo "== text"; "$0" pagecache o/file
        dd if=/dev/urandom of=o/file bs=4096 seek=1 count=2 conv=notrunc 2>/dev/null
        echo "== dirty"; "$0" pagecache o/file --json
        echo "== sync"; "$0" pagecache o/file --offset 4096 --length 4096 --sync --json
        echo "== synced"; "$0" pagecache o/file --json
    "#;
    let Some(text) = with_mounts(folder.path(), &script.replace("FIVE", FIVE_PAGES)) else {
        return;
    };
    let of = |name: &str, what: &str| value(&text, name)[what].clone();
    assert_eq!(
        (of("cold", "resident"), of("warm", "resident")),
        (0.into(), 5.into()),
        "{text}"
    );
    assert_eq!(of("warm", "backing"), Value::Null);
    assert!(
        part(&text, "text").contains("a disk or not, is not known"),
        "{text}"
    );
    assert!(!part(&text, "text").contains("on the disk"), "{text}");
    if of("dirty", "known_by") == "/proc/kpageflags" {
        assert_eq!(of("dirty", "dirty"), 2, "{text}");
        assert_eq!(of("synced", "dirty"), 0, "{text}");
    } else {
        assert_eq!(of("dirty", "dirty"), Value::Null, "{text}");
    }
}

#[test]
fn an_overlay_of_a_disk_and_memory_tells_them_apart_by_the_pages() {
    let folder = folder();
    let script = r#"
        mkdir low o t; mount -t tmpfs none t; mkdir t/up t/work; FIVE >low/low; sync
        mount -t overlay none -o lowerdir=low,upperdir=t/up,workdir=t/work o; FIVE >o/up
        echo "== low"; "$0" pagecache o/low --json
        echo "== up"; "$0" pagecache o/up --json
    "#;
    let Some(text) = with_mounts(folder.path(), &script.replace("FIVE", FIVE_PAGES)) else {
        return;
    };
    for (file, backing) in [("low", Value::Null), ("up", "memory".into())] {
        let look = value(&text, file);
        // Its device numbers are those of the layers, or made up.
        assert_eq!(
            (&look["filesystem"], &look["backing"]),
            (&"overlay".into(), &backing),
            "{look}"
        );
    }
}

#[test]
fn ramfs_and_huge_pages_are_memory_and_a_look_takes_none_of_it() {
    let folder = folder();
    let script = r#"
        mkdir r h; mount -t ramfs none r; FIVE >r/file
        echo "== ramfs"; "$0" pagecache r/file
        echo "== ramfs flags"; "$0" pagecache r/file --flags --json
        echo "== ramfs at once"
        for file in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            FIVE >r/$file; "$0" pagecache r/$file --flags --json
        done
        mount -t hugetlbfs -o pagesize=2M none h; truncate -s 4M h/file
        echo "== huge"; "$0" pagecache h/file
        echo "== huge part"; "$0" pagecache h/file --offset 2101248 --length 8192 --json
        echo "== huge flags"; "$0" pagecache h/file --flags --json
        echo "== huge evict"; "$0" pagecache h/file --evict
    "#;
    let Some(text) = with_mounts(folder.path(), &script.replace("FIVE", FIVE_PAGES)) else {
        return;
    };
    says_nothing_of_a_disk(part(&text, "ramfs"));
    let look = value(&text, "ramfs flags");
    assert_eq!(
        (&look["resident"], &look["dirty"]),
        (&5.into(), &0.into()),
        "{look}"
    );
    // A page that waits for its list in a processor's batch does not say yet that nothing is behind it.
    for look in part(&text, "ramfs at once").lines() {
        let look: Value = serde_json::from_str(look).expect(look);
        assert_eq!(look["dirty"], 0, "{look}");
    }
    says_nothing_of_a_disk(part(&text, "huge"));
    assert!(
        part(&text, "huge").contains("in huge ones of 2 097 152 bytes"),
        "{text}"
    );
    let look = value(&text, "huge part");
    assert_eq!(
        (&look["pages"], &look["resident"]),
        (&2.into(), &0.into()),
        "{look}"
    );
    let look = value(&text, "huge flags");
    assert_eq!(
        (&look["pages"], &look["backing"]),
        (&1024.into(), &"memory".into()),
        "{look}"
    );
    assert!(
        part(&text, "huge evict").contains("0 pages dropped"),
        "{text}"
    );
}

#[test]
fn a_file_in_memory_that_is_mounted_nowhere_has_no_disk() {
    let file = rustix::fs::memfd_create("seen", rustix::fs::MemfdFlags::empty()).unwrap();
    let file = File::from(file);
    file.set_len(3 * page_bytes()).unwrap();
    file.write_all_at(b"there", page_bytes()).unwrap();
    let link = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        std::os::fd::AsRawFd::as_raw_fd(&file)
    );
    let output = pinwire([link.as_str()]).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    says_nothing_of_a_disk(&text);
    let look = &json(&mut pinwire([link.as_str(), "--json"]))[0];
    assert_eq!(
        (&look["resident"], &look["backing"]),
        (&1.into(), &"memory".into()),
        "{look}"
    );
    assert_eq!(Backing::of(&file), Backing::Memory);
}

#[test]
fn what_the_kernel_makes_up_at_each_read_has_no_page_to_show() {
    for (path, says) in [
        ("/proc/version", "its length is made up"),
        ("/sys/devices/virtual/net/lo/mtu", "its length is made up"),
        ("/sys/kernel/notes", "nothing of it is in the page cache"),
        (
            "/sys/kernel/btf/vmlinux",
            "nothing of it is in the page cache",
        ),
    ] {
        if !Path::new(path).exists() {
            cannot(&format!("there is no {path}"));
            continue;
        }
        let output = pinwire([path]).assert();
        let output = output.get_output();
        let error = String::from_utf8_lossy(&output.stderr);
        // Newer kernels let btf be mapped, page by page: then it has those.
        if output.status.success() && path.contains("btf") {
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{path}: {error}");
        assert!(error.contains(says), "{path}: {error}");
    }
}
