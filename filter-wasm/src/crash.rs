//! A VM that dies when a request asks it to: only in the variant that `make wasm-crash` builds for the scenarios of dead
//! VMs. What is shipped has no such switch.

use crate::host::{HeaderMap, Host};

/// The request header that kills.
const SWITCH: &str = "x-kaeru-crash";

/// Traps, as a fault of ours or a broken host would make the VM trap, where the current request asks for it.
pub(crate) fn where_asked(host: &impl Host) {
    if host.headers(HeaderMap::Request).get(SWITCH).is_some() {
        std::arch::wasm32::unreachable();
    }
}
