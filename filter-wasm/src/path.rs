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
    let end = path.iter().position(|b| matches!(b, b'?' | b'#'));
    let path = &path[..end.unwrap_or(path.len())];
    let mut folded = String::with_capacity(path.len().min(PATH_MAX));
    for (index, segment) in path.split(|&b| b == b'/').enumerate() {
        let text = match std::str::from_utf8(segment) {
            Ok(text) if !is_id(text) => text,
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
    folded
}

fn is_id(segment: &str) -> bool {
    let printable = segment.bytes().all(|b| b.is_ascii_graphic());
    if !printable || segment.len() > WORD_MAX || segment.contains(['%', '@', '"', '\\']) {
        return true;
    }
    !is_version(segment)
        && segment
            .split(['-', '_', '.', ':', ',', ';', '=', '~', '!'])
            .any(is_id_part)
}

/// `v1`, `v2beta1`, `v1.2`: part of the name, not an id.
fn is_version(segment: &str) -> bool {
    segment
        .strip_prefix('v')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.len() <= 8)
}

fn is_id_part(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let hex = part.bytes().all(|b| b.is_ascii_hexdigit());
    digits > 0 && (digits == part.len() || digits >= DIGITS_MIN || (hex && part.len() >= HEX_MIN))
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
