//! Requests of the kind that `make bench` measures, through a VM in the proxy in memory, for a profiler that counts
//! instructions: `make profile`. What `simulated` does in it stands for hostcalls and is none of the filter's cost.

use kaeru_filter::host::simulated::{Pairs, Proxy, Simulated, pairs};
use kaeru_filter::vm::Vm;

const REQUESTS: u32 = 10_000;
const CONFIGURATION: &str = r#"{"service": "shop/web", "trust_plaintext": true}"#;
const ROOT: u32 = 1;

fn request(number: u32) -> Pairs {
    pairs(&format!(
        ":method: POST\n:path: /orders/{number}\n:authority: web:8080\n:scheme: http\nuser-agent: shop/1.0\n\
         accept: */*\ncontent-type: application/json\ncontent-length: 0\n\
         x-request-id: 0198c3a2-1111-4222-8333-{number:012x}\n\
         traceparent: 00-0af7651916cd43dd{number:016x}-b7ad6b7169203331-01\n\
         x-event-id: 0198c3a2-1111-7222-8333-{number:012x}\n\
         baggage: event.id=0198c3a2-1111-7222-8333-{number:012x}\n\
         x-event-type: order.placed\nx-event-from: shop/till;t=1795500000000\n\
         x-forwarded-proto: http\nx-envoy-attempt-count: 1"
    ))
}

fn main() {
    let proxy = Proxy::at(1_795_500_000_000);
    let host = Simulated::new(&proxy, 1);
    *host.configuration.borrow_mut() = CONFIGURATION.into();
    host.set_number("xds.listener_direction", Some(1));
    host.set_number("response.flags", Some(0));
    *host.response.borrow_mut() = pairs(":status: 200\ncontent-length: 0\nserver: envoy");
    let mut vm = Vm::new(host);
    vm.configure(ROOT, CONFIGURATION.len());
    for number in 1..=REQUESTS {
        *vm.host().request.borrow_mut() = request(number);
        vm.request_headers(number, true);
        vm.response_headers(number);
        vm.log(number);
        vm.delete(number);
        for (token, ..) in proxy.calls.take() {
            let answer = (pairs(":status: 200"), br#"{"accepted":1}"#.to_vec());
            *vm.host().answer.borrow_mut() = answer;
            vm.call_answered(token, true);
        }
        if number % 400 == 0 {
            proxy.now_ms.set(proxy.now_ms.get() + 1_000);
            vm.tick(ROOT);
        }
    }
}
