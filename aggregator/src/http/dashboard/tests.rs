//! What the page must never do.

use super::{PAGE, POLICY, SCRIPT, STYLE};

#[test]
fn what_is_shown_is_set_as_text() {
    for sink in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
    ] {
        assert!(!SCRIPT.contains(sink), "{sink}");
    }
}

#[test]
fn nothing_is_inline_or_from_elsewhere() {
    assert!(!POLICY.contains("unsafe") && !POLICY.contains('*'));
    for text in [PAGE, STYLE, SCRIPT] {
        assert!(
            !text.contains("http://") && !text.contains("https://") && !text.contains("@import")
        );
    }
    for inline in ["<style", " style=", " onclick=", "<script>"] {
        assert!(!PAGE.contains(inline), "{inline}");
    }
    assert!(
        !SCRIPT.contains("style:"),
        "the policy forbids style attributes"
    );
}
