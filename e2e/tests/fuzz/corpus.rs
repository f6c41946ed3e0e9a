//! What fuzzing that is led by coverage has found to begin from (`make fuzz`): one file for each parser, one input a line,
//! the least that reach all that was reached.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The kept inputs of a parser; none where there is no file.
pub(crate) fn read(name: &str) -> io::Result<Vec<Vec<u8>>> {
    match fs::read_to_string(file(name)) {
        Ok(text) => Ok(text.lines().map(unescaped).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The file of a parser.
pub(crate) fn file(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The package of the tests, or the one of `make fuzz` beside it.
    let tests = ["tests/fuzz/corpus", "../tests/fuzz/corpus"].map(|folder| here.join(folder));
    let there = tests.iter().find(|folder| folder.is_dir());
    there.unwrap_or(&tests[0]).join(format!("{name}.txt"))
}

/// The reverse of `escape_ascii`.
pub(crate) fn unescaped(line: &str) -> Vec<u8> {
    let mut rest = line.bytes();
    let mut input = Vec::new();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'\\' => match rest.next() {
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b'x') => hex(rest.next()) << 4 | hex(rest.next()),
                Some(itself) => itself,
                None => b'\\',
            },
            plain => plain,
        };
        input.push(byte);
    }
    input
}

fn hex(digit: Option<u8>) -> u8 {
    let value = digit.and_then(|digit| char::from(digit).to_digit(16));
    value
        .and_then(|value| u8::try_from(value).ok())
        .unwrap_or(0)
}
