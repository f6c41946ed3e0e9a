//! The host by the proxy-wasm ABI 0.2.1: the few hostcalls that Kaeru makes, declared here so that each status is
//! a number that is looked at, and none is a panic (the usual SDK has about fifty). Nothing else is in this file.
#![expect(unsafe_code, reason = "the ABI is C: pointers and lengths")]

use std::cell::Cell;
use std::ptr;

use super::{HeaderMap, Headers, Host, Level, MetricKind, Outcall, Refused, Reply, Shared, pack};

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const EMPTY: u32 = 7;
const BUFFER_CALL_BODY: u32 = 4;
const BUFFER_PLUGIN_CONFIGURATION: u32 = 7;
/// The context that hostcalls speak for where none is named: the one of the callback.
const WHOEVER_IS_SERVED: u32 = 0;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, text: *const u8, len: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
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
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_len: usize) -> u32;
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
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_len: usize,
        body: *const u8,
        body_len: usize,
        headers: *const u8,
        headers_len: usize,
        grpc: i32,
    ) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_len: usize,
        headers: *const u8,
        headers_len: usize,
        body: *const u8,
        body_len: usize,
        trailers: *const u8,
        trailers_len: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, len: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, delta: i64) -> u32;
    fn proxy_get_metric(id: u32, value: *mut u64) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn random_get(buffer: *mut u8, len: usize) -> u16;
}

/// The Envoy around this VM.
#[derive(Debug, Default)]
pub(crate) struct Envoy {
    faults: Cell<u64>,
}

impl Envoy {
    /// Passes "OK" on; anything else but `expected` is counted as a fault.
    fn check(&self, status: u32, expected: &[u32]) -> Result<(), Refused> {
        if status == OK {
            return Ok(());
        }
        if !expected.contains(&status) {
            self.faults.set(self.faults.get() + 1);
        }
        Err(Refused(status))
    }

    /// Runs a hostcall that gives bytes, which the host put into memory that `exports::allocate` gave it.
    fn bytes(
        &self,
        expected: &[u32],
        call: impl FnOnce(*mut *mut u8, *mut usize) -> u32,
    ) -> Result<Vec<u8>, Refused> {
        let mut data = ptr::null_mut();
        let mut len = 0;
        self.check(call(&raw mut data, &raw mut len), expected)?;
        if data.is_null() || len == 0 {
            return Ok(Vec::new());
        }
        #[expect(
            clippy::same_length_and_capacity,
            reason = "allocated with exactly this size"
        )]
        // SAFETY: `data` comes from `exports::allocate` with exactly this length, and is given away once.
        Ok(unsafe { Vec::from_raw_parts(data, len, len) })
    }

    fn buffer(&self, buffer: u32, max: usize) -> Vec<u8> {
        self.bytes(&[NOT_FOUND, EMPTY], |data, len| {
            // SAFETY: both pointers are valid for the call.
            unsafe { proxy_get_buffer_bytes(buffer, 0, max, data, len) }
        })
        .unwrap_or_default()
    }
}

fn packed(headers: &[(&str, &str)]) -> Vec<u8> {
    pack(headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())))
}

impl Host for Envoy {
    fn now_ns(&self) -> u64 {
        let mut time = 0;
        // SAFETY: the pointer is valid for the call; so are all pointers below, each from a live slice or variable.
        let _ = self.check(
            unsafe { proxy_get_current_time_nanoseconds(&raw mut time) },
            &[],
        );
        time
    }

    fn random(&self) -> u64 {
        let mut bits = [0; 8];
        // SAFETY: as above.
        let _ = self.check(
            u32::from(unsafe { random_get(bits.as_mut_ptr(), bits.len()) }),
            &[],
        );
        u64::from_le_bytes(bits)
    }

    fn log(&self, level: Level, text: &str) {
        // SAFETY: as above.
        let _ = self.check(
            unsafe { proxy_log(level as u32, text.as_ptr(), text.len()) },
            &[],
        );
    }

    fn faults(&self) -> u64 {
        self.faults.get()
    }

    fn configuration(&self, size: usize) -> Vec<u8> {
        self.buffer(BUFFER_PLUGIN_CONFIGURATION, size)
    }

    fn property(&self, path: &str) -> Option<Vec<u8>> {
        self.bytes(&[NOT_FOUND], |data, len| {
            // SAFETY: as above.
            unsafe { proxy_get_property(path.as_ptr(), path.len(), data, len) }
        })
        .ok()
    }

    fn headers(&self, map: HeaderMap) -> Headers {
        let packed = self.bytes(&[], |data, len| {
            // SAFETY: as above.
            unsafe { proxy_get_header_map_pairs(map as u32, data, len) }
        });
        Headers::new(packed.unwrap_or_default())
    }

    fn set_header(&self, map: HeaderMap, name: &str, value: &[u8]) {
        // SAFETY: as above.
        let status = unsafe {
            proxy_replace_header_map_value(
                map as u32,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        };
        let _ = self.check(status, &[]);
    }

    fn remove_header(&self, map: HeaderMap, name: &[u8]) {
        // SAFETY: as above.
        let status =
            unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) };
        let _ = self.check(status, &[NOT_FOUND]);
    }

    fn reply(&self, reply: &Reply<'_>) {
        let headers = packed(reply.headers);
        // SAFETY: as above.
        let status = unsafe {
            proxy_send_local_response(
                reply.status.into(),
                reply.details.as_ptr(),
                reply.details.len(),
                reply.body.as_ptr(),
                reply.body.len(),
                headers.as_ptr(),
                headers.len(),
                reply.grpc.map_or(-1, i32::from),
            )
        };
        let _ = self.check(status, &[]);
    }

    fn call(&self, call: &Outcall<'_>) -> Result<u32, Refused> {
        let headers = packed(call.headers);
        let trailers = packed(&[]);
        let mut token = 0;
        // SAFETY: as above.
        self.check(unsafe { proxy_set_effective_context(call.root) }, &[])?;
        // SAFETY: as above.
        let status = unsafe {
            proxy_http_call(
                call.cluster.as_ptr(),
                call.cluster.len(),
                headers.as_ptr(),
                headers.len(),
                call.body.as_ptr(),
                call.body.len(),
                trailers.as_ptr(),
                trailers.len(),
                call.timeout_ms.max(1),
                &raw mut token,
            )
        };
        // SAFETY: as above.
        let _ = self.check(
            unsafe { proxy_set_effective_context(WHOEVER_IS_SERVED) },
            &[],
        );
        // Refused calls are no surprise (no such cluster, no host in it): the caller counts them.
        self.check(status, &[status])?;
        Ok(token)
    }

    fn call_body(&self, max: usize) -> Vec<u8> {
        self.buffer(BUFFER_CALL_BODY, max)
    }

    fn set_tick_ms(&self, period: u32) {
        // SAFETY: as above.
        let _ = self.check(unsafe { proxy_set_tick_period_milliseconds(period) }, &[]);
    }

    fn shared(&self, key: &[u8]) -> Option<Shared> {
        let mut cas = 0;
        let value = self
            .bytes(&[NOT_FOUND], |data, len| {
                // SAFETY: as above.
                unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, len, &raw mut cas) }
            })
            .ok()?;
        Some(Shared { value, cas })
    }

    fn set_shared(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Refused> {
        // SAFETY: as above.
        let status = unsafe {
            proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas)
        };
        self.check(status, &[Refused::CAS_MISMATCH.0])
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        let mut id = 0;
        // SAFETY: as above.
        let status =
            unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) };
        self.check(status, &[]).ok().map(|()| id)
    }

    fn add_metric(&self, id: u32, delta: i64) {
        if delta != 0 {
            // SAFETY: as above.
            let _ = self.check(unsafe { proxy_increment_metric(id, delta) }, &[]);
        }
    }

    fn metric(&self, id: u32) -> u64 {
        let mut value = 0;
        // SAFETY: as above.
        let _ = self.check(unsafe { proxy_get_metric(id, &raw mut value) }, &[]);
        value
    }
}
