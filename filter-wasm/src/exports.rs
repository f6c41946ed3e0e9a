//! What Envoy calls: the exports of the proxy-wasm ABI 0.2.1. Each finds this VM's one [`Vm`] and asks it; nothing is
//! decided here. What has nothing to do is not exported (`proxy_on_context_create`, `proxy_on_vm_start`, `proxy_on_done`):
//! the host then does not enter the VM for it.
#![expect(
    unsafe_code,
    reason = "the ABI names its functions and takes raw memory"
)]

use std::alloc::{Layout, alloc};
use std::cell::RefCell;
use std::ptr;

use crate::host::envoy::Envoy;
use crate::vm::{Next, Vm};

thread_local! {
    static VM: RefCell<Vm<Envoy>> = RefCell::new(Vm::new(Envoy::default()));
}

/// Asks the VM. Should the host ever call in while it is being asked, that call is left out: the request passes.
fn ask<T: Default>(question: impl FnOnce(&mut Vm<Envoy>) -> T) -> T {
    VM.with(|vm| vm.try_borrow_mut().map(|mut vm| question(&mut vm)))
        .unwrap_or_default()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: the size is not 0. `Envoy::bytes` frees it as a `Vec<u8>` of exactly this capacity.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        _ => ptr::null_mut(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, size: usize) -> bool {
    ask(|vm| vm.configure(root, size));
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    ask(|vm| vm.tick(root));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    _root: u32,
    token: u32,
    headers: usize,
    _body: usize,
    _trailers: usize,
) {
    ask(|vm| vm.call_answered(token, headers > 0));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(stream: u32, _headers: usize, end: bool) -> u32 {
    #[cfg(feature = "crash")]
    crate::crash::where_asked(&Envoy::default());
    match ask(|vm| vm.request_headers(stream, end)) {
        Next::Continue => 0,
        Next::Answered => 1,
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(stream: u32, _headers: usize, _end: bool) -> u32 {
    ask(|vm| vm.response_headers(stream));
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(stream: u32) {
    ask(|vm| vm.log(stream));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    ask(|vm| vm.delete(context));
}
