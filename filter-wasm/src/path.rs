//! Folds the ids in a path to `{id}`, so that calls of one kind have one name and no path is a new one. A pure function
//! of the path: callers and callees fold alike.

use kaeru_protocol::limits::PATH_MAX;

const ID: &str = "{id}";
/// Stands for the rest of a path that is longer than [`PATH_MAX`].
const MORE: &str = "/{more}";
/// A segment longer than this is an id whatever it is made of: names of resources are words.
const WORD_MAX: usize = 40;
/// That many digits in one part make it an id: `A1001` is one, `oauth2` and `log4j` are not.
const DIGITS_MIN: usize = 3;
/// That many hex digits with at least one decimal among them make an id (Git's short form has 7, a span has 16).
const HEX_MIN: usize = 7;

/// The path without query and fragment, its ids folded, at most [`PATH_MAX`] printable ASCII characters.
pub fn fold(path: &[u8]) -> String {
    let mut folded = String::new();
    fold_into(&mut folded, path);
    folded
}

/// The same, in the place of what `folded` held.
pub fn fold_into(folded: &mut String, path: &[u8]) {
    folded.clear();
    let end = path.iter().position(|b| matches!(b, b'?' | b'#'));
    let path = &path[..end.unwrap_or(path.len())];
    for (index, segment) in path.split(|&b| b == b'/').enumerate() {
        let text = match std::str::from_utf8(segment) {
            Ok(text) if !is_id(segment) => text,
            _ => ID,
        };
        if folded.len() + 1 + text.len() + MORE.len() > PATH_MAX {
            folded.push_str(MORE);
            break;
        }
        if index > 0 {
            folded.push('/');
        }
        folded.push_str(text);
    }
}

/// Whether any of its parts is an id, or it is no word at all. One pass: each request has a path.
fn is_id(segment: &[u8]) -> bool {
    if segment.len() > WORD_MAX {
        return true;
    }
    let (mut part, mut found) = (Part::default(), false);
    for &byte in segment {
        match byte {
            b'0'..=b'9' => part.digits += 1,
            b'a'..=b'f' | b'A'..=b'F' => part.hex += 1,
            b'-' | b'_' | b'.' | b':' | b',' | b';' | b'=' | b'~' | b'!' => {
                found |= std::mem::take(&mut part).is_id();
            }
            b'%' | b'@' | b'"' | b'\\' | ..=b' ' | 0x7f.. => return true,
            _ => part.others += 1,
        }
    }
    (found || part.is_id()) && !is_version(segment)
}

/// `v1`, `v2beta1`, `v1.2`: part of the name, not an id.
fn is_version(segment: &[u8]) -> bool {
    matches!(segment, [b'v', b'0'..=b'9', ..]) && segment.len() <= 9
}

/// Characters of a part of a segment, by their kinds.
#[derive(Default)]
struct Part {
    digits: usize,
    hex: usize,
    others: usize,
}

impl Part {
    fn is_id(&self) -> bool {
        let letters = self.hex + self.others;
        let hex = self.others == 0 && self.digits + self.hex >= HEX_MIN;
        self.digits > 0 && (letters == 0 || self.digits >= DIGITS_MIN || hex)
    }
}

#[cfg(test)]
mod tests {
    use super::{PATH_MAX, fold};

    #[test]
    fn ids_fold_and_words_stay() {
        for (path, folded) in [
            ("/", "/"),
            ("", ""),
            ("/orders", "/orders"),
            ("/orders/", "/orders/"),
            ("/orders/17/pay?x=1#y", "/orders/{id}/pay"),
            ("/orders/order-7", "/orders/{id}"),
            ("/orders/A1001", "/orders/{id}"),
            ("/o/0198c3a2-1111-7222-8333-444455556666", "/o/{id}"),
            ("/c/9f2c00d/tree", "/c/{id}/tree"),
            ("/u/ann@example.com", "/u/{id}"),
            ("/u/a%20b", "/u/{id}"),
            ("/d/2026-11-23", "/d/{id}"),
            ("/x/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/x/{id}"),
            ("/v1/oauth2/log4j/facade", "/v1/oauth2/log4j/facade"),
            ("/v2beta1/v1.2/s3", "/v2beta1/v1.2/s3"),
            ("/shop.v1.Orders/Place", "/shop.v1.Orders/Place"),
            ("*", "*"),
        ] {
            assert_eq!(fold(path.as_bytes()), folded);
        }
        assert_eq!(fold(b"/a/\xff\xfe/b"), "/a/{id}/b");
    }

    #[test]
    fn long_paths_end_in_more() {
        let path = "/word".repeat(200);
        let folded = fold(path.as_bytes());
        assert!(folded.len() <= PATH_MAX && folded.ends_with("/{more}"));
        assert_eq!(fold("x".repeat(5000).as_bytes()), "{id}");
    }
}
