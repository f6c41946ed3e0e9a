//! The binary form: base64 of `xds.data.orca.v3.OrcaLoadReport`, read field by field.

use super::{Load, Malformed};

/// Names of the fields by their numbers in the proto.
fn field(number: u64) -> Option<&'static str> {
    Some(match number {
        1 => "cpu_utilization",
        2 => "mem_utilization",
        3 => "rps",
        4 => "request_cost",
        5 => "utilization",
        6 => "rps_fractional",
        7 => "eps",
        8 => "named_metrics",
        9 => "application_utilization",
        _ => return None,
    })
}

pub(super) fn read(base64: &[u8]) -> Result<Load, Malformed> {
    let message = decode(base64)?;
    let mut bytes = message.as_slice();
    let mut load = Load::default();
    while !bytes.is_empty() {
        let (number, value) = take_field(&mut bytes)?;
        match (field(number), value) {
            (Some(name), Wire::Double(value)) => load.take(name, value)?,
            (Some("rps"), Wire::Varint(value)) => load.take("rps", value as f64)?,
            (Some(map), Wire::Bytes(mut entry)) => {
                let (mut key, mut value) = ("", 0.0);
                while !entry.is_empty() {
                    match take_field(&mut entry)? {
                        (1, Wire::Bytes(k)) => {
                            key = std::str::from_utf8(k).map_err(|_| Malformed)?;
                        }
                        (2, Wire::Double(v)) => value = v,
                        _ => {}
                    }
                }
                load.take(&format!("{map}.{key}"), value)?;
            }
            // A field of a newer proto.
            (None, _) => {}
            (Some(_), _) => return Err(Malformed),
        }
    }
    Ok(load)
}

enum Wire<'a> {
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
    Other,
}

fn take_field<'a>(bytes: &mut &'a [u8]) -> Result<(u64, Wire<'a>), Malformed> {
    let tag = take_varint(bytes)?;
    let value = match tag & 7 {
        0 => Wire::Varint(take_varint(bytes)?),
        1 => {
            let (raw, rest) = bytes.split_first_chunk::<8>().ok_or(Malformed)?;
            *bytes = rest;
            Wire::Double(f64::from_le_bytes(*raw))
        }
        2 => {
            let len = usize::try_from(take_varint(bytes)?).map_err(|_| Malformed)?;
            let (raw, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
            *bytes = rest;
            Wire::Bytes(raw)
        }
        5 => {
            *bytes = bytes.get(4..).ok_or(Malformed)?;
            Wire::Other
        }
        _ => return Err(Malformed),
    };
    Ok((tag >> 3, value))
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

/// Base64 (RFC 4648, 4), padded or not.
fn decode(base64: &[u8]) -> Result<Vec<u8>, Malformed> {
    let digits = base64.trim_ascii();
    let digits = digits.strip_suffix(b"==").unwrap_or(digits);
    let digits = digits.strip_suffix(b"=").unwrap_or(digits);
    let mut decoded = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut held) = (0_u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(Malformed),
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            decoded.push(((bits >> held) & 0xff) as u8);
        }
    }
    if held >= 6 {
        Err(Malformed)
    } else {
        Ok(decoded)
    }
}
