//! The kept corpus of every fuzz target, run through the target's body: `fuzz/` and CONTRIBUTING tell how to
//! look for more.
#![cfg(all(feature = "net", feature = "serve"))]

mod bodies;
#[path = "../fakes/mod.rs"]
mod fakes;
mod seeds;

use std::path::PathBuf;

use bodies::TARGETS;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

#[test]
fn nothing_of_the_kept_corpus_breaks_a_promise() {
    for (name, body) in TARGETS {
        let folder = corpus(name);
        let entries = std::fs::read_dir(&folder);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for entry in entries {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            println!("{}", path.display());
            body(&data);
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}

#[test]
fn nothing_at_all_breaks_no_promise_either() {
    for (_, body) in TARGETS {
        for length in [0, 1, 2, 3, 300] {
            for byte in [0, 0xff] {
                body(&vec![byte; length]);
            }
        }
    }
}

/// Each target of libFuzzer is a body here, and has a corpus.
#[test]
fn every_target_has_a_program() {
    let manifest = std::fs::read_to_string(corpus("..").join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}

#[test]
#[ignore = "writes the seeds of the corpus anew: cargo test --test fuzz -- --ignored"]
fn write_the_seeds() {
    for (target, seeds) in seeds::all() {
        let folder = corpus(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, data) in seeds {
            std::fs::write(folder.join(format!("seed-{name}")), data).unwrap();
        }
    }
}
