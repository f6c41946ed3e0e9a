//! Fuzzing led by coverage: libFuzzer over the parsers of `e2e/tests/fuzz/targets.rs`. `scripts/fuzz` builds and runs it.
//!
//! | first argument | what |
//! | --- | --- |
//! | `names` | prints the parsers' names |
//! | `unpack FOLDER` | puts seeds and kept inputs of the parser that the folder is named after there, and its words into `FOLDER.dict` |
//! | `pack FOLDER` | keeps what lies there instead |
//! | a folder | libFuzzer's arguments; the parser is the one that the folder is named after |

#![no_main]

#[path = "../../tests/fuzz/corpus.rs"]
mod corpus;
#[path = "../../tests/fuzz/targets.rs"]
#[expect(dead_code, reason = "how often the quick form runs a parser")]
mod targets;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::{env, fs, io, process};

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(
    init: begin(),
    |input: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.parse)(input);
        }
    }
);

/// Returns where libFuzzer is to go on.
fn begin() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["names"] => Ok(names()),
        ["unpack", folder] => unpack(Path::new(folder)),
        ["pack", folder] => pack(Path::new(folder)),
        [folder, ..] => {
            let _ = CHOSEN.set(target(Path::new(folder)));
            return;
        }
        [] => Err(io::Error::other("which parser?")),
    };
    if let Err(error) = &done {
        eprintln!("{error}");
    }
    process::exit(i32::from(done.is_err()));
}

fn names() {
    for target in TARGETS {
        println!("{}", target.name);
    }
}

fn target(folder: &Path) -> &'static Target {
    let target = TARGETS.iter().find(|target| folder.ends_with(target.name));
    target.unwrap_or_else(|| panic!("{} is named after no parser", folder.display()))
}

fn unpack(folder: &Path) -> io::Result<()> {
    let target = target(folder);
    let kept = corpus::read(target.name)?;
    let seeds = target.seeds.iter().copied();
    for (number, input) in seeds.chain(kept.iter().map(Vec::as_slice)).enumerate() {
        fs::write(folder.join(number.to_string()), input)?;
    }
    let mut words = String::new();
    for word in target.words {
        words.push('"');
        for byte in *word {
            let _ = write!(words, "\\x{byte:02x}");
        }
        words.push_str("\"\n");
    }
    fs::write(folder.with_extension("dict"), words)
}

/// Short ones first.
fn pack(folder: &Path) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        kept.push(fs::read(entry?.path())?);
    }
    kept.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    let lines = kept
        .iter()
        .map(|input| format!("{}\n", input.escape_ascii()));
    fs::write(corpus::file(target(folder).name), lines.collect::<String>())
}
