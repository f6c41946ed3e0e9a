//! The two readable forms.

use super::{Load, Malformed};
use crate::json;

/// `name=value` (older: `name:value`), by commas.
pub(super) fn read_text(payload: &[u8]) -> Result<Load, Malformed> {
    let text = std::str::from_utf8(payload).map_err(|_| Malformed)?;
    let mut load = Load::default();
    for pair in text.split(',') {
        let (name, value) = pair.split_once(['=', ':']).ok_or(Malformed)?;
        let value = json::float(value.trim().as_bytes()).ok_or(Malformed)?;
        load.take(name.trim(), value)?;
    }
    Ok(load)
}

/// The protobuf's JSON form; unknown fields are refused, as Envoy does.
pub(super) fn read_json(payload: &[u8]) -> Result<Load, Malformed> {
    let fields = json::read(payload).ok_or(Malformed)?;
    let mut load = Load::default();
    for (name, value) in fields.as_object().ok_or(Malformed)? {
        match value.as_object() {
            Some(members) => {
                for (key, value) in members {
                    let value = value.as_f64().ok_or(Malformed)?;
                    load.take(&format!("{name}.{key}"), value)?;
                }
            }
            None => load.take(name, value.as_f64().ok_or(Malformed)?)?,
        }
    }
    Ok(load)
}
