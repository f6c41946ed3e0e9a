//! One leader among the VMs of a proxy, by a lease in shared data. It polls and states the proxy's status; every other VM
//! only reads what it wrote.

use kaeru_protocol::ReporterId;

use crate::host::Host;

const LEASE: &[u8] = b"kaeru.lease";
/// How long a leader leads without renewing, ms: five ticks.
const LEASE_MS: u64 = 1_000;

/// Looks at the lease: takes it when it is free, renews it when it is ours. Says whether this VM leads: only when the
/// lease was already ours when read, since a first write can be overwritten by another's.
pub fn lead(host: &impl Host, now_ms: u64, me: ReporterId) -> bool {
    let lease = host.shared(LEASE).unwrap_or_default();
    let (holder, until_ms) = decode(&lease.value).unwrap_or_default();
    let ours = holder == me.0;
    // A lease further ahead than one can be was written before the clock was set back.
    let free = until_ms <= now_ms || until_ms - now_ms > LEASE_MS;
    if !ours && !free {
        return false;
    }
    let mut value = me.0.to_le_bytes().to_vec();
    value.extend((now_ms + LEASE_MS).to_le_bytes());
    let kept = host.set_shared(LEASE, &value, lease.cas).is_ok();
    ours && !free && kept
}

fn decode(value: &[u8]) -> Option<(u64, u64)> {
    let (holder, until) = value.split_first_chunk::<8>()?;
    let (until, _) = until.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*holder), u64::from_le_bytes(*until)))
}
