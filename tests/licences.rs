//! Every dependency may be given away with us, and comes from crates.io: what deny.toml says, checked
//! with nothing but cargo.

use cargo_metadata::MetadataCommand;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};
use toml::{Table, Value};

/// The strings of an array of deny.toml.
fn strings(deny: &Table, section: &str, key: &str) -> Vec<String> {
    let array = deny[section][key].as_array().expect("an array");
    let text = |value: &Value| value.as_str().expect("strings").to_owned();
    array.iter().map(text).collect()
}

/// Does every way out of `expression` lead through licences that are allowed?
fn may_be_used(expression: &str, allow: &[Licensee]) -> Result<bool, spdx::ParseError> {
    // Older crates write "MIT/Apache-2.0".
    let expression = Expression::parse_mode(expression, ParseMode::LAX)?;
    let allowed = |req: &LicenseReq| allow.iter().any(|licensee| licensee.satisfies(req));
    Ok(expression.evaluate(allowed))
}

#[test]
fn every_dependency_is_allowed_and_from_crates_io() {
    let deny: Table = include_str!("../deny.toml").parse().unwrap();
    let registries = strings(&deny, "sources", "allow-registry");
    let allow: Vec<_> = strings(&deny, "licenses", "allow")
        .iter()
        .map(|licence| Licensee::parse(licence).unwrap())
        .collect();
    // What is built here: crates for other systems may not be at hand, and this must not ask for them.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .other_options(["--locked", "--offline", "--filter-platform", &host].map(String::from))
        .exec()
        .unwrap();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for package in &metadata.packages {
        if metadata.workspace_members.contains(&package.id) {
            continue;
        }
        checked += 1;
        let name = format!("{} {}", package.name, package.version);
        let source = package.source.as_ref().map(|source| source.repr.as_str());
        let from = source.and_then(|source| source.strip_prefix("registry+"));
        if !from.is_some_and(|from| registries.iter().any(|registry| registry == from)) {
            wrong.push(format!("{name} comes from {source:?}"));
        }
        match package
            .license
            .as_deref()
            .map(|text| may_be_used(text, &allow))
        {
            Some(Ok(true)) => {}
            found => wrong.push(format!("{name} is under {:?}: {found:?}", package.license)),
        }
    }
    assert!(checked > 20, "only {checked} dependencies seen");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_licence_that_is_not_on_the_list_is_refused() {
    let allow = [Licensee::parse("MIT").unwrap()];
    assert!(may_be_used("MIT OR GPL-3.0-only", &allow).unwrap());
    assert!(may_be_used("MIT/Apache-2.0", &allow).unwrap());
    assert!(!may_be_used("MIT AND Unicode-3.0", &allow).unwrap());
    assert!(!may_be_used("GPL-3.0-only", &allow).unwrap());
    assert!(may_be_used("no such licence", &allow).is_err());
}
