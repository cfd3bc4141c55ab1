//! The walls of the house: which room may import which. Every `use crate::` (and every path `crate::`) is read and
//! held against the table; a room imports only from floors below its own, so there can be no circle.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Room and floor. Floor 1 and `config` are open to all above; rooms of one floor never import each other.
const FLOORS: &[(&str, u8)] = &[
    ("main", 11),
    ("cli", 10),
    ("app", 9),
    ("api", 7),
    ("registry", 6),
    ("maintenance", 6),
    ("preserve", 6),
    ("cache", 5),
    ("identities", 4),
    ("repository", 4),
    ("upstream", 3),
    ("storage", 3),
    ("server", 3),
    ("auth", 3),
    ("config", 2),
    ("oci", 1),
    ("telemetry", 1),
    ("claims", 1),
    ("clock", 1),
    ("collapse", 1),
    ("job", 1),
    ("transfer", 1),
    ("mapped", 1),
];

/// Rooms that see only some of what lies below them.
const ONLY: &[(&str, &[&str])] = &[
    (
        "api",
        &[
            "registry",
            "auth",
            "identities",
            "server",
            "oci",
            "telemetry",
            "clock",
            "job",
            "transfer",
        ],
    ),
    (
        "registry",
        &["cache", "repository", "storage", "upstream", "config", "oci"],
    ),
    ("server", &["config", "telemetry", "clock", "mapped"]),
    ("auth", &["config", "oci", "clock", "telemetry", "collapse"]),
    ("identities", &["auth", "storage", "config", "clock", "claims"]),
    ("repository", &["storage", "config", "oci", "clock", "claims"]),
    ("config", &["oci"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn imports(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            // `use crate::{storage, upstream}`: the first word of each element.
            let end = group.find("};").unwrap_or(group.len());
            let mut depth = 0;
            let mut word = String::new();
            for c in group[..end].chars().chain([',']) {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => rooms.push(std::mem::take(&mut word)),
                    _ if depth == 0 => word.push(c),
                    _ => {}
                }
            }
        } else {
            rooms.push(rest.to_owned());
        }
    }
    let first = |path: String| {
        let path = path.trim();
        let end = path
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(path.len());
        path[..end].to_owned()
    };
    rooms
        .into_iter()
        .map(first)
        .filter(|room| !room.is_empty())
        .collect()
}

#[test]
fn every_room_imports_only_from_below() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let only: BTreeMap<_, _> = ONLY.iter().copied().collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    assert!(files.len() > 20, "the sources were not found");
    let mut broken = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&source).expect("a path inside");
        let room = inside
            .components()
            .next()
            .expect("a component")
            .as_os_str()
            .to_string_lossy();
        let room = room.trim_end_matches(".rs");
        if room == "lib" {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a readable source");
        let Some(floor) = floors.get(room) else {
            broken.push(format!("{} is a room without a floor", inside.display()));
            continue;
        };
        for imported in imports(&text) {
            if imported == room {
                continue;
            }
            let allowed = floors.get(imported.as_str()).is_some_and(|below| below < floor)
                && only
                    .get(room)
                    .is_none_or(|only| only.contains(&imported.as_str()));
            if !allowed {
                broken.push(format!("{} imports {imported}", inside.display()));
            }
        }
        if !text.starts_with("//!") {
            broken.push(format!("{} does not open with //!", inside.display()));
        }
        if text.contains("unsafe ") && room != "mapped" {
            broken.push(format!("{} says unsafe", inside.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn imports_are_read_from_groups_and_paths() {
    let text = "use crate::{storage, upstream::{self, X}};\nfn f() { crate::oci::g() }";
    assert_eq!(imports(text), ["storage", "upstream", "oci"]);
}
