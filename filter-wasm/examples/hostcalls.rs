//! A filter that makes one hostcall many times in each request, and nothing else: `make bench` learns from it what that
//! hostcall costs. Configured by `{"call": "...", "times": 64}`; an unknown call is none.
#![expect(
    unsafe_code,
    reason = "the ABI names its functions and takes raw memory"
)]

use std::alloc::{Layout, alloc};
use std::cell::{Cell, RefCell};
use std::ptr;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, len: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_len: usize,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_len: usize,
        data: *mut *mut u8,
        len: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
        cas: u32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, len: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, delta: i64) -> u32;
}

const BUFFER_PLUGIN_CONFIGURATION: u32 = 7;
const GAUGE: u32 = 1;
/// As many as the filter has for what ids mean, and about as long.
const SLOTS: u32 = 65_536;
const VALUE: [u8; 100] = [b'x'; 100];

thread_local! {
    static CALL: RefCell<(String, u64)> = RefCell::default();
    static METRIC: Cell<u32> = const { Cell::new(0) };
    static RANDOM: Cell<u32> = const { Cell::new(1) };
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: the size is not 0; `bytes` frees it.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        _ => ptr::null_mut(),
    }
}

/// What the host gave, as a `Vec` that frees it.
fn bytes(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Vec<u8> {
    let (mut data, mut len) = (ptr::null_mut(), 0);
    call(&raw mut data, &raw mut len);
    if data.is_null() || len == 0 {
        return Vec::new();
    }
    #[expect(
        clippy::same_length_and_capacity,
        reason = "allocated with exactly this size"
    )]
    // SAFETY: it was allocated with exactly this size, for this call.
    unsafe {
        Vec::from_raw_parts(data, len, len)
    }
}

fn key(slot: u32) -> String {
    let mut key = String::with_capacity(14);
    key.push_str("kaeru.kin.");
    for shift in [12, 8, 4, 0] {
        key.push(char::from(b'a' + ((slot >> shift) & 0xf) as u8));
    }
    key
}

/// Slots in no order, as event ids meet them.
fn next_slot() -> u32 {
    let next = RANDOM
        .get()
        .wrapping_mul(1_664_525)
        .wrapping_add(1_013_904_223);
    RANDOM.set(next);
    (next >> 8) & (SLOTS - 1)
}

fn write(key: &str) {
    // SAFETY: all pointers here and below are of live slices and variables.
    unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), VALUE.as_ptr(), VALUE.len(), 0) };
}

fn read(key: &str) -> Vec<u8> {
    let mut cas = 0;
    bytes(|data, len| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, len, &raw mut cas)
    })
}

fn property(path: &str) -> Vec<u8> {
    bytes(|data, len| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, len) })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(_root: u32, size: usize) -> bool {
    let told = bytes(|data, len| unsafe {
        proxy_get_buffer_bytes(BUFFER_PLUGIN_CONFIGURATION, 0, size, data, len)
    });
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap_or_default();
    let call = told["call"].as_str().unwrap_or_default().to_owned();
    if call.starts_with("shared") {
        (0..SLOTS).for_each(|slot| write(&key(slot)));
    }
    let mut metric = 0;
    let name = "hostcalls_gauge";
    unsafe { proxy_define_metric(GAUGE, name.as_ptr(), name.len(), &raw mut metric) };
    METRIC.set(metric);
    CALL.set((call, told["times"].as_u64().unwrap_or(0)));
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(_stream: u32, _headers: usize, _end: bool) -> u32 {
    CALL.with_borrow(|(call, times)| {
        for time in 0..*times {
            match call.as_str() {
                "time" => {
                    let mut now = 0;
                    unsafe { proxy_get_current_time_nanoseconds(&raw mut now) };
                }
                "gauge" => {
                    let delta = if time % 2 == 0 { 1 } else { -1 };
                    unsafe { proxy_increment_metric(METRIC.get(), delta) };
                }
                "headers" => {
                    bytes(|data, len| unsafe { proxy_get_header_map_pairs(0, data, len) });
                }
                "set header" => {
                    let (name, value) = ("x-event-reported", b"shop/web");
                    unsafe {
                        proxy_replace_header_map_value(
                            0,
                            name.as_ptr(),
                            name.len(),
                            value.as_ptr(),
                            value.len(),
                        )
                    };
                }
                "property" => drop(property("xds\0listener_direction")),
                "shared write, anywhere" => write(&key(next_slot())),
                "shared write, one key" => write(&key(0)),
                "shared read, anywhere" => drop(read(&key(next_slot()))),
                "shared read, nothing there" => drop(read("kaeru.verdicts")),
                _ => {}
            }
        }
    });
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(_stream: u32, _headers: usize, _end: bool) -> u32 {
    if CALL.with_borrow(|(call, _)| call == "flags") {
        let times = CALL.with_borrow(|(_, times)| *times);
        (0..times).for_each(|_| drop(property("response\0flags")));
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(_stream: u32) {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(_context: u32) {}
