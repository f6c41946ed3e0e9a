//! An empty filter: it takes the same callbacks as Kaeru's and does nothing in them. What it costs is what the ABI costs;
//! `make bench` compares Kaeru's filter with it.
#![expect(
    unsafe_code,
    reason = "the ABI names its functions and takes raw memory"
)]

use std::alloc::{Layout, alloc};
use std::ptr;

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: the size is not 0. Nobody asks for bytes in here, so it is called for nothing.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        _ => ptr::null_mut(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(_context: u32, _root: u32) {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _size: usize) -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(_root: u32, _size: usize) -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(_root: u32) {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    _root: u32,
    _token: u32,
    _headers: usize,
    _body: usize,
    _trailers: usize,
) {
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(_stream: u32, _headers: usize, _end: bool) -> u32 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(_stream: u32, _headers: usize, _end: bool) -> u32 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(_context: u32) -> bool {
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(_stream: u32) {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(_context: u32) {}
